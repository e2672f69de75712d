"""TIFF: its first directory, rewritten with only the tags that determine the pixels.

Pillow decodes the flavours that it decodes correctly; others go to :mod:`.deep_tiff`, if tifffile is installed.
"""

import struct
from io import BytesIO
from math import ceil
from typing import NamedTuple

import numpy as np
from PIL import TiffImagePlugin

from ...errors import ImageTooLarge, InvalidImage, UnsupportedFormat
from . import deep_tiff
from .colour import Bands
from .directory import NOTHING, Directory, read_directory, read_header, write_directory
from .encoded import Encoded, load_bands, pillow_errors, too_many, truncated
from .flavour import WITH_PREDICTOR, YCBCR, Flavour
from .metadata import Metadata, with_directory

KEPT = {  # tags that determine the pixels, with the maximum number of their values
    **dict.fromkeys((256, 257, 259, 262, 266, 277, 278, 284, 292, 293, 317, 322, 323, 332, 531), 1),
    **{258: 16, 338: 16, 339: 16, 320: 3 << 16, 347: 1 << 20, 512: 16, 519: 16, 520: 16, 521: 16, 513: 1, 514: 1},
    530: 2,
}
SUBFILE, PHOTOMETRIC, STRIPS, STRIP_ROWS, STRIP_BYTES, PLANAR, PREDICTOR = 254, 262, 273, 278, 279, 284, 317
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 322, 323, 324, 325
PROFILE, SUB_DIRECTORIES, RAW_VERSION = 34675, 330, 50706
FILTERED, LINEAR_RAW = 32803, 34892  # photometric interpretations: a sensor's pixels, mosaiced or demosaiced
BYTES = (1, 7)  # types
MOST_PARTS = 1 << 18  # strips or tiles; enough for one per row and plane of the tallest picture with four planes
MOST_TILE = 4096**2  # pixels, of a tile that is larger than the picture
MOST_DIRECTORIES = 32  # read, in search of a raw file's pixels


class Parts(NamedTuple):
    """The strips or tiles of a picture; ``places`` and ``sizes`` are positions and sizes of their bytes in the file."""

    width: int
    height: int
    places: np.ndarray
    sizes: np.ndarray
    tiled: bool


def read(data: bytes | bytearray) -> Encoded:
    """An image, from its first directory. Raises InvalidImage, UnsupportedFormat, ImageTooLarge."""
    header = read_header(data)
    directory = header and read_directory(data, header[2], header[0], header[1])
    if not header or not directory:
        raise truncated("TIFF")
    refuse_raw(directory, header[1])
    flavour = Flavour.of(directory)
    by_pillow = flavour.read_by_pillow()
    if not by_pillow:
        deep_tiff.require(flavour)

    def load() -> Bands:
        parts = find_parts(directory, flavour)
        check_parts(parts, flavour, len(data))
        bare = rewritten(directory, flavour, parts)
        return load_by_pillow(bare) if by_pillow else deep_tiff.load(bare, flavour)

    is_profile = PROFILE in directory.entries and directory.entries[PROFILE].kind in BYTES
    profile = directory.values(PROFILE, 8 << 20).tobytes() if is_profile else None
    metadata = with_directory(Metadata(profile=profile), directory, header[1])
    return Encoded((flavour.width, flavour.height), load, metadata)


def refuse_raw(first: Directory, big: bool) -> None:
    """Raises UnsupportedFormat for a camera's raw file, whose first directory is only a preview."""
    others = directories(first, big)
    filtered = any(each.number(PHOTOMETRIC, 0) in (FILTERED, LINEAR_RAW) for each in (first, *others))
    if RAW_VERSION in first.entries or filtered or bytes(first.data[8:10]) == b"CR":
        raise UnsupportedFormat("camera raw files are not supported: convert it to JPEG or TIFF first")
    if first.number(SUBFILE, 0) & 1 and others:
        raise UnsupportedFormat("the first picture of the TIFF file is a preview of another; save the other one alone")


def directories(first: Directory, big: bool) -> list[Directory]:
    """The further directories of a file, up to a maximum number: those inside the first, and those after it."""
    found: list[Directory] = []
    places = [*first.numbers(SUB_DIRECTORIES, MOST_DIRECTORIES), first.next]
    while places and len(found) < MOST_DIRECTORIES:
        directory = read_directory(first.data, places.pop(0), first.order, big)
        if directory:
            found.append(directory)
            places.append(directory.next)
    return found


def find_parts(directory: Directory, flavour: Flavour) -> Parts:
    """The strips or tiles that the size requires, and no more.

    Raises:
        InvalidImage: There are fewer.
        ImageTooLarge: There are more than any picture needs, or larger ones.
    """
    tiled = TILES in directory.entries
    wide, high = flavour.width, min(directory.number(STRIP_ROWS, flavour.height), flavour.height)
    if tiled:
        wide, high = directory.number(TILE_WIDTH, 0), directory.number(TILE_HEIGHT, 0)
    if min(wide, high) < 1:
        raise truncated("TIFF")
    if wide * high > max(MOST_TILE, 4 * flavour.width * flavour.height):
        raise ImageTooLarge(f"the image has tiles of {wide}×{high} pixels, and {flavour.width}×{flavour.height} in all")
    count = ceil(flavour.width / wide) * ceil(flavour.height / high) * flavour.planes
    if count > MOST_PARTS:
        raise too_many("TIFF", "strips or tiles", MOST_PARTS)
    tags = (TILES, TILE_BYTES) if tiled else (STRIPS, STRIP_BYTES)
    places, sizes = (integers(directory.values(tag, count)) for tag in tags)
    if len(places) < count:
        raise truncated("TIFF")
    return Parts(wide, high, places, sizes if len(sizes) == count else NOTHING, tiled)


def check_parts(parts: Parts, flavour: Flavour, length: int) -> None:
    """Raises InvalidImage if a part lies outside the file, or if parts overlap so much that decoding takes too long."""
    sizes = parts.sizes.astype(np.uint64)
    if flavour.compression == 1 and flavour.photometric != YCBCR:
        rows = np.full(len(parts.places), parts.height, np.uint64)
        if not parts.tiled:
            each = ceil(flavour.height / parts.height)
            rows[each - 1 :: each] = flavour.height - (each - 1) * parts.height
        sizes = rows * np.uint64(flavour.row_bytes(parts.width))
    elif sizes.sum() > length + 2 * flavour.height * flavour.planes * flavour.row_bytes(flavour.width):
        raise InvalidImage("the TIFF file is damaged: its strips or tiles have more bytes than file and pixels")
    ends = parts.places.astype(np.uint64) + (sizes if len(sizes) else np.uint64(0))
    if ends.max() > length:
        raise truncated("TIFF")


def rewritten(directory: Directory, flavour: Flavour, parts: Parts) -> bytes:
    """The file with one directory, at its end, that has only the kept tags."""
    data, order = directory.data, directory.order
    tags = {tag: integers(directory.values(tag, most)) for tag, most in KEPT.items()}
    tags |= dict(zip((TILES, TILE_BYTES) if parts.tiled else (STRIPS, STRIP_BYTES), parts[2:4], strict=True))
    if flavour.samples == 1:
        tags[PLANAR] = NOTHING  # has no effect on one sample, but Pillow would use the mode's first letter as the mode
    if flavour.compression not in WITH_PREDICTOR:
        tags[PREDICTOR] = NOTHING
    place = len(data) + len(data) % 2
    if place >= 2**32:
        raise ImageTooLarge("the TIFF file has 4 GiB or more")
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, place)
    kept = {tag: values for tag, values in tags.items() if len(values)}
    return b"".join([start, memoryview(data)[8:], bytes(len(data) % 2), write_directory(order, place, kept)])


def integers(values: np.ndarray) -> np.ndarray:
    """Integers in a type that a classic TIFF has; empty for other types."""
    if values.dtype.kind not in "ui":
        return NOTHING
    width = min(4, values.dtype.itemsize)
    return values.clip(0, 2**32 - 1 if width == 4 else None).astype(f"u{width}")


def load_by_pillow(bare: bytes) -> Bands:
    """Decodes the pixels by Pillow."""
    with pillow_errors("the TIFF header"):
        image = TiffImagePlugin.TiffImageFile(BytesIO(bare), "")
    return load_bands(image)
