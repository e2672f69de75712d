"""GIF: blocks (GIF89a specification). Of several frames, the first, on a canvas that is transparent elsewhere."""

import struct
from io import BytesIO

from PIL import GifImagePlugin, Image

from ...errors import InvalidImage
from .colour import Bands
from .encoded import Encoded, load_bands, pillow_errors, too_many, truncated

MOST_BLOCKS = 1_000_000  # the largest pictures have 400,000
MOST_PIXELS_A_BYTE = 2731  # a code has at least 9 bits, and encodes at most 4,096 pixels
EXTENSION, FRAME, CONTROL = 0x21, 0x2C, 0xF9


def read(data: bytes | bytearray) -> Encoded:
    """An image, from its blocks. Raises InvalidImage, ImageTooLarge."""
    if len(data) < 13:
        raise truncated("GIF")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    palette = bytes(data[13 : 13 + palette_size(flags)])
    control, place = find_frame(data, 13 + len(palette))
    left, top, wide, high, local = struct.unpack_from("<4HB", data, place + 1)
    pixels = place + 10 + palette_size(local)
    end = blocks_end(data, pixels + 1, MOST_BLOCKS)[0]
    if wide * high > MOST_PIXELS_A_BYTE * max(0, end - pixels):
        raise truncated("GIF")
    header = b"GIF89a" + struct.pack("<HHBBB", wide, high, flags, 0, 0) + palette + control
    frame = bytes([FRAME]) + struct.pack("<4HB", 0, 0, wide, high, local) + bytes(data[place + 10 : end])
    with pillow_errors("the GIF header"):
        image = GifImagePlugin.GifImageFile(BytesIO(header + frame + (b";" if end < len(data) else b"")), "")
    canvas = max(width, left + wide), max(height, top + high)
    return Encoded(canvas, lambda: load(image, canvas, (left, top)))


def palette_size(flags: int) -> int:
    """Size of the colour table, in bytes, by a descriptor's flags."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def find_frame(data: bytes | bytearray, place: int) -> tuple[bytes, int]:
    """The graphic control extension of the first frame, or nothing, and the frame's position."""
    control, blocks = b"", 0
    while place + 10 < len(data):
        if data[place] == FRAME:
            return control, place
        if data[place] != EXTENSION:
            raise InvalidImage("the GIF file is damaged")
        end, count = blocks_end(data, place + 2, MOST_BLOCKS - blocks)
        if data[place + 1] == CONTROL and end - place == 8:
            control = bytes(data[place:end])
        blocks += count + 1
        place = end
    raise truncated("GIF")


def blocks_end(data: bytes | bytearray, place: int, most: int) -> tuple[int, int]:
    """The end of a sequence of sub-blocks, or of a truncated file, and the number of sub-blocks."""
    for count in range(most):
        if place >= len(data):
            return len(data), count
        if not data[place]:
            return place + 1, count
        place += 1 + data[place]
    raise too_many("GIF", "blocks", MOST_BLOCKS)


def load(image: Image.Image, canvas: tuple[int, int], corner: tuple[int, int]) -> Bands:
    """Decodes the frame and pastes it on the canvas."""
    color, alpha = load_bands(image)
    if image.size == canvas:
        return color, alpha
    laid, shown = Image.new(color.mode, canvas), Image.new("L", canvas)
    laid.paste(color, corner)
    shown.paste(Image.new("L", image.size, 255) if alpha is None else alpha, corner)
    return laid, shown
