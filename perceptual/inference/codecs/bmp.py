"""BMP. Pixels with channel masks are decoded here: Pillow knows only some masks, and drops 1-bit alpha."""

import struct
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import BmpImagePlugin, Image

from ...errors import ImageTooLarge
from .colour import Bands
from .encoded import Encoded, load_bands, pillow_errors, truncated
from .metadata import Metadata, checked_dpi

MASKS = (3, 6)  # values of the compression field: uncompressed, with masks for three or four channels
RUNS = (1, 2)  # run-length encoding
MOST_RUNS = 2 << 20  # bytes; Pillow takes a second for them


def read(data: bytes | bytearray) -> Encoded:
    """An image, from its header. Raises InvalidImage, ImageTooLarge."""
    if len(data) < 26:
        raise truncated("BMP")
    (size,) = struct.unpack_from("<I", data, 14)
    if size < 40 or len(data) < 54:  # OS/2 bitmaps: 24 bits or a palette, without further metadata
        return by_pillow(data, Metadata())
    width, height, _, bits, compression, _, across, down = struct.unpack_from("<iiHHIIii", data, 18)
    metadata = Metadata(dpi=checked_dpi(across * 0.0254, down * 0.0254))
    if compression in RUNS and len(data) > MOST_RUNS:
        raise ImageTooLarge(f"the BMP file has more than {MOST_RUNS:,} bytes of runs; save it as PNG")
    if compression in MASKS and bits in (16, 32):
        count = 4 if compression == 6 or size >= 56 else 3
        masks = struct.unpack_from(f"<{count}I", data.ljust(70, b"\0"), 54)
        return Encoded((width, abs(height)), lambda: load(data, width, height, bits, masks), metadata)
    return by_pillow(data, metadata)


def by_pillow(data: bytes | bytearray, metadata: Metadata) -> Encoded:
    """Decodes the pixels by Pillow."""
    with pillow_errors("the BMP header"):
        image = BmpImagePlugin.BmpImageFile(BytesIO(data), "")
    return Encoded(image.size, lambda: load_bands(image), metadata)


def load(data: bytes | bytearray, width: int, height: int, bits: int, masks: Sequence[int]) -> Bands:
    """Splits pixels into three or four channels by their masks."""
    (start,) = struct.unpack_from("<I", data, 10)
    row = (width * bits + 31) // 32 * 4
    if start + row * abs(height) > len(data):
        raise truncated("BMP")
    rows = np.frombuffer(data, np.uint8, row * abs(height), start).reshape(abs(height), row)
    pixels = rows.view(f"<u{bits // 8}")[:: -1 if height > 0 else 1, :width]
    color = Image.merge("RGB", [channel(pixels, mask) for mask in masks[:3]])
    return color, channel(pixels, masks[3]) if any(masks[3:]) else None


def channel(pixels: np.ndarray, mask: int) -> Image.Image:
    """The bits of a mask, scaled to 8 bits."""
    shift = (mask & -mask).bit_length() - 1 if mask else 0
    most = mask >> shift
    values = (pixels & np.array(mask, pixels.dtype)) >> np.array(shift, pixels.dtype)
    return Image.fromarray((values.astype(np.float32) * (255 / max(1, most))).round().astype(np.uint8))
