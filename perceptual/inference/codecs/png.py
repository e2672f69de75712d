"""PNG: chunks (the PNG specification, section 5). Of an animated one, the default image."""

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image, PngImagePlugin

from ...errors import InvalidImage
from .colour import Bands, split_alpha
from .encoded import Encoded, pillow_errors, too_many, truncated
from .metadata import Metadata, checked_dpi, with_exif

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_CHUNKS = 100_000  # the largest pictures have 16,000 of the usual 8 KiB
LARGEST_PROFILE = 8 << 20  # bytes; those of printers have up to 4 MiB
CRITICAL = (b"IHDR", b"PLTE", b"tRNS")
METADATA = (b"iCCP", b"sRGB", b"gAMA", b"pHYs", b"eXIf")
USED = {*CRITICAL, *METADATA}
CHUNK = struct.Struct(">I4s")  # length and name
SRGB_GAMMA = 1 / 2.2


def read(data: bytes | bytearray) -> Encoded:
    """An image, from its chunks. Raises InvalidImage, ImageTooLarge."""
    first, pixels = read_chunks(data)
    header = first.get(b"IHDR", b"")
    if len(header) != 13:
        raise truncated("PNG")
    key = first.get(b"tRNS", b"")
    transparent = key if fits(key, kind=header[9]) else None
    kept = {b"IHDR": header, b"PLTE": first.get(b"PLTE"), b"tRNS": transparent, b"IDAT": pixels, b"IEND": b""}
    bare = SIGNATURE + b"".join(chunk(name, content) for name, content in kept.items() if content is not None)
    with pillow_errors("the PNG header"):
        image = PngImagePlugin.PngImageFile(BytesIO(bare), "")
    return Encoded(image.size, lambda: load(image), metadata(first))


def read_chunks(data: bytes | bytearray) -> tuple[dict[bytes, bytes], bytes]:
    """The first of each kind of chunk that is used, and all pixels, compressed.

    Raises:
        InvalidImage: The checksum of a chunk that determines the pixels is wrong.
        ImageTooLarge: There are more chunks than any picture has.
    """
    view = memoryview(data)
    first: dict[bytes, bytes] = {}
    pixels = []
    place = len(SIGNATURE)
    for _ in range(MOST_CHUNKS):
        if place + 8 > len(data):
            break
        length, name = CHUNK.unpack_from(data, place)
        end = place + 8 + length
        if name == b"IDAT":
            pixels.append(bytes(data[place + 8 : end]))
        if name == b"IEND" or end + 4 > len(data):
            break  # perhaps truncated; the decoder gets the pixels up to here
        if name == b"IDAT" or (name in USED and name not in first):
            intact = zlib.crc32(view[place + 4 : end]) == int.from_bytes(data[end : end + 4], "big")
            if not intact and name not in METADATA:
                raise InvalidImage(f"the PNG file is damaged: the checksum of {name.decode()} is wrong")
            if intact and name != b"IDAT":
                first[name] = bytes(view[place + 8 : end])
        place = end + 4
    else:
        raise too_many("PNG", "chunks", MOST_CHUNKS)
    return first, b"".join(pixels)


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk with its checksum."""
    checksum = zlib.crc32(content, zlib.crc32(name))
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def fits(key: bytes, kind: int) -> bool:
    """Whether a transparent colour has the form that a kind of pixels requires."""
    return len(key) == {0: 2, 2: 6}.get(kind) or (kind == 3 and 0 < len(key) <= 256)


def metadata(first: dict[bytes, bytes]) -> Metadata:
    """Metadata of the chunks."""
    profile = inflate(first.get(b"iCCP", b""))
    found = Metadata(
        profile=profile,
        gamma=None if profile or b"sRGB" in first else gamma(first.get(b"gAMA", b"")),
        dpi=dpi(first.get(b"pHYs", b"")),
    )
    return with_exif(found, first.get(b"eXIf"))


def inflate(content: bytes) -> bytes | None:
    """The ICC profile of an iCCP chunk."""
    compressed = content.partition(b"\0")[2][1:]
    inflating = zlib.decompressobj()
    try:
        profile = inflating.decompress(compressed, LARGEST_PROFILE)
    except zlib.error:
        return None
    return profile if profile and inflating.eof else None


def gamma(content: bytes) -> float | None:
    """The exponent of a gAMA chunk; None if it is that of sRGB, within rounding."""
    value = int.from_bytes(content, "big") / 100_000 if len(content) == 4 else 0
    return value if 0.01 < value < 100 and abs(value / SRGB_GAMMA - 1) > 0.05 else None


def dpi(content: bytes) -> tuple[float, float] | None:
    """Pixels per inch, from a pHYs chunk."""
    if len(content) != 9 or content[8] != 1:
        return None
    across, down = struct.unpack_from(">II", content)
    return checked_dpi(across * 0.0254, down * 0.0254)


def load(image: PngImagePlugin.PngImageFile) -> Bands:
    """Decodes the pixels of a PNG, of which nothing is loaded yet."""
    with pillow_errors("the image"):
        key, stored = image.info.get("transparency"), image.tile[0][3] if image.tile else None
        if stored in ("L;2", "L;4") and key is not None:  # Pillow scales the pixels to 8 bits, but not the key
            image.info["transparency"] = key * {"L;2": 85, "L;4": 17}[stored]
        if stored == "RGB;16B" and key is not None:
            return load_deep_key(image)
        image.load()
        return split_alpha(image)


def load_deep_key(image: PngImagePlugin.PngImageFile) -> Bands:
    """:func:`load` for 16 bits of RGB, of which one colour is transparent: it must be equal in both its bytes."""
    key = np.array(image.info.pop("transparency"))
    low = opened_again(image)
    low.tile = [low.tile[0]._replace(args="RGB;16L")]  # of big-endian values the low bytes
    del low.info["transparency"]
    equal = [(np.asarray(each) == byte).all(axis=-1) for each, byte in ((image, key >> 8), (low, key & 255))]
    return image, Image.fromarray(np.where(equal[0] & equal[1], 0, 255).astype(np.uint8))


def opened_again(image: PngImagePlugin.PngImageFile) -> PngImagePlugin.PngImageFile:
    """The same file opened again, with nothing loaded yet."""
    file = image.fp
    assert file is not None
    place = file.tell()
    file.seek(0)
    again = PngImagePlugin.PngImageFile(BytesIO(file.read()), "")
    file.seek(place)
    return again
