"""WebP: the chunks of its RIFF container (RFC 9649). Of an animated one, the first frame."""

import struct
from io import BytesIO

from PIL import WebPImagePlugin

from .encoded import Encoded, load_bands, pillow_errors, too_many, truncated
from .metadata import Metadata, with_exif

MOST_CHUNKS = 100_000
HEADER, PIXELS = b"VP8X", (b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L")
METADATA = (b"ICCP", b"EXIF")
METADATA_FLAGS = 0b00101100  # of the header: ICC, EXIF, XMP


def read(data: bytes | bytearray) -> Encoded:
    """An image, from its chunks. Raises InvalidImage, ImageTooLarge."""
    first = read_chunks(data)
    if header := first.get(HEADER):
        first[HEADER] = bytes([header[0] & ~METADATA_FLAGS]) + header[1:]
    kept = b"WEBP" + b"".join(
        name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
        for name, content in first.items()
        if name in PIXELS
    )
    with pillow_errors("the WEBP header"):
        image = WebPImagePlugin.WebPImageFile(BytesIO(b"RIFF" + struct.pack("<I", len(kept)) + kept), "")
    metadata = with_exif(Metadata(profile=first.get(b"ICCP")), first.get(b"EXIF"))
    return Encoded(image.size, lambda: load_bands(image), metadata)


def read_chunks(data: bytes | bytearray) -> dict[bytes, bytes]:
    """The first chunk of each kind that is needed: of an animation's frames, only one.

    Raises:
        InvalidImage: A chunk is truncated.
        ImageTooLarge: There are more than any picture has.
    """
    first: dict[bytes, bytes] = {}
    place = 12
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise truncated("WEBP")
    for _ in range(MOST_CHUNKS):
        if place + 8 > len(data):
            return first
        name, length = struct.unpack_from("<4sI", data, place)
        if name not in first and name in (*PIXELS, *METADATA):
            if name in PIXELS and place + 8 + length > len(data):
                raise truncated("WEBP")
            first[name] = bytes(data[place + 8 : place + 8 + length])
        place += 8 + length + length % 2
    raise too_many("WEBP", "chunks", MOST_CHUNKS)
