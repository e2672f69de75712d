"""The kind of pixels in a TIFF, and whether Pillow decodes it correctly."""

from dataclasses import dataclass

from PIL import TiffImagePlugin, features

from .directory import Directory
from .encoded import truncated

UINT, INT, FLOAT = 1, 2, 3
SAMPLES = {UINT: "unsigned", INT: "signed", FLOAT: "floating-point"}
GREY_INVERTED, GREY, RGB, PALETTE, MASK, CMYK, YCBCR, LAB = 0, 1, 2, 3, 4, 5, 6, 8
COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "CIE Lab", 9: "ICC Lab"}
CHANNELS = {0: 1, 1: 1, 2: 3, 3: 1, 4: 1, 5: 4, 6: 3, 8: 3}
COMPRESSIONS = {
    **{1: "none", 2: "CCITT", 3: "CCITT fax 3", 4: "CCITT fax 4", 5: "LZW", 6: "old-style JPEG", 7: "JPEG"},
    **{8: "deflate", 32773: "PackBits", 32946: "deflate", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP"},
    **{33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC"},
    **{50002: "JPEG XL", 52546: "JPEG XL", 34892: "lossy JPEG", 34676: "SGI Log", 34677: "SGI Log", 34927: "WebP"},
    **{32809: "ThunderScan", 9: "JBIG", 34661: "JBIG", 34933: "PNG", 22610: "JPEG XR", 34934: "JPEG XR"},
}
FLAVOUR_TAGS = (256, 257, 258, 259, 262, 266, 277, 284, 317, 338, 339, 530)
WITH_PREDICTOR = (5, 8, 32946, 34925, 50000)  # compressions for which libtiff uses the predictor
BY_LIBTIFF = (2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000)


@dataclass(frozen=True)
class Flavour:
    """How the pixels of a TIFF are stored.

    Attributes:
        width: In pixels.
        height: In pixels.
        bits: Of each sample of a pixel.
        kinds: Of each sample: unsigned, signed or floating-point.
        photometric: The tag that says how samples are interpreted as colours.
        samples: Number of samples of a pixel.
        extra: Meaning of the samples after the colours: 0 unknown, 1 premultiplied opacity, 2 opacity.
        planar: 1 for samples side by side, 2 for planes.
        compression: Value of the tag.
        predictor: 1 none, 2 differences, 3 differences of the bytes of floats.
        order: ``<`` or ``>``, of the bytes.
        fill: 1 if the first pixel of a byte is in its highest bit, else 2.
        subsampling: How many pixels across and down share the chroma of one.
    """

    width: int
    height: int
    bits: tuple[int, ...]
    kinds: tuple[int, ...]
    photometric: int
    samples: int
    extra: tuple[int, ...]
    planar: int
    compression: int
    predictor: int
    order: str
    fill: int
    subsampling: tuple[int, ...]

    @classmethod
    def of(cls, directory: Directory) -> "Flavour":
        """The flavour in a directory, with the specification's defaults. Raises InvalidImage if tags are incomplete."""
        if any(tag in directory.entries and not len(directory.values(tag, 16)) for tag in FLAVOUR_TAGS):
            raise truncated("TIFF")
        samples = min(max(1, directory.number(277, 1)), 64)
        return cls(
            width=directory.number(256, 0),
            height=directory.number(257, 0),
            bits=repeated(directory.numbers(258) or (1,), samples),
            kinds=repeated(tuple(UINT if kind == 4 else kind for kind in directory.numbers(339) or (UINT,)), samples),
            photometric=directory.number(262, 0),
            samples=samples,
            extra=directory.numbers(338),
            planar=directory.number(284, 1),
            compression=directory.number(259, 1),
            predictor=directory.number(317, 1),
            order=directory.order,
            fill=directory.number(266, 1),
            subsampling=directory.numbers(530) or (2, 2),
        )

    @property
    def planes(self) -> int:
        """Number of planes in which the samples are stored."""
        return self.samples if self.planar == 2 else 1

    def row_bytes(self, width: int) -> int:
        """Bytes of a row of pixels, or of a plane of it, without compression."""
        return (width * (max(self.bits) if self.planes > 1 else sum(self.bits)) + 7) // 8

    def __str__(self) -> str:
        bits = "/".join(str(each) for each in dict.fromkeys(self.bits))
        kinds = "/".join(SAMPLES.get(each, "complex") for each in dict.fromkeys(self.kinds))
        colours = COLOURS.get(self.photometric, f"colours of kind {self.photometric}")
        alpha = " with more samples" if self.samples > CHANNELS.get(self.photometric, self.samples) else ""
        packed = COMPRESSIONS.get(self.compression, f"number {self.compression}")
        planes = ", in planes" if self.planar == 2 and self.samples > 1 else ""
        return f"TIFF with {bits}-bit {kinds} {colours}{alpha}{planes}, compression {packed}"

    def read_by_pillow(self) -> bool:
        """Whether Pillow decodes this flavour correctly; the tests compare it with tifffile for every flavour."""
        if self.compression == 1:
            return self.in_pillow() and not self.lost_without_libtiff()
        by_libtiff = self.compression in BY_LIBTIFF and features.check("libtiff")
        return bool(by_libtiff) and self.in_pillow() and not self.lost_with_libtiff()

    def lost_without_libtiff(self) -> bool:
        """Whether Pillow decodes uncompressed pixels wrongly."""
        in_planes = self.planes > 1 and (self.bits[0] != 8 or self.extra != ())
        chroma = self.photometric == YCBCR and self.subsampling != (1, 1)
        return in_planes or chroma or self.never_right()

    def lost_with_libtiff(self) -> bool:
        """Whether Pillow misinterprets the pixels from libtiff."""
        # libtiff returns bytes in the machine's order, which Pillow takes into account only for unsigned 16 bits.
        swapped = self.order == ">" and (self.bits[0] == 32 or (self.bits[0] == 16 and self.kinds[0] == INT))
        return swapped or self.planes == 2 or self.never_right()

    def never_right(self) -> bool:
        """Whether Pillow decodes these samples wrongly in any compression: signed bytes, deep greys with white as 0."""
        signed_bytes = self.kinds[0] == INT and self.bits[0] == 8
        return signed_bytes or (self.photometric == GREY_INVERTED and self.bits[0] > 16)

    def in_pillow(self) -> bool:
        """Whether Pillow supports these samples."""
        prefix = b"II" if self.order == "<" else b"MM"
        kinds = self.kinds[:1] if len(set(self.kinds)) == 1 else self.kinds
        key = (prefix, self.photometric, kinds, self.fill, self.bits, self.extra)
        return key in TiffImagePlugin.OPEN_INFO


def repeated(values: tuple[int, ...], samples: int) -> tuple[int, ...]:
    """A value for each sample; a single value is for all samples."""
    return values * samples if len(values) == 1 else values[:samples]
