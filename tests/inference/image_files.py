"""Small pictures of every kind, and files of them."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms, features

HEIGHT, WIDTH = 24, 32
ORIENTATION = 0x0112


def color_photo():
    """A smooth picture without any symmetry, H×W×3: its four corners differ."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([255 * x / (WIDTH - 1), 255 * y / (HEIGHT - 1), 40 + 3 * x + y], axis=-1).round().astype(np.uint8)


def grey_photo():
    return color_photo()[..., 2]


def alpha_photo():
    return np.repeat(np.linspace(0, 255, HEIGHT).round().astype(np.uint8)[:, None], WIDTH, axis=1)


def stacked(grey):
    return np.stack([grey] * 3, axis=-1)


def save(image, format, **options):
    buffer = BytesIO()
    image.save(buffer, {"HEIC": "HEIF"}.get(format, format), **options)
    return buffer.getvalue()


def as_array(tensor):
    return tensor.permute(1, 2, 0).numpy()


def difference(picture, expected):
    """The largest difference of any colour value."""
    found = as_array(picture.rgb)
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    return np.abs(found.astype(int) - expected).max()


def require_writer(format):
    """Skips where nothing writes a format; pillow-heif calls HEIC by its container's name."""
    if format == "HEIC":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")


def forbid_decoding(monkeypatch):
    monkeypatch.setattr(Image, "_getdecoder", lambda *_: pytest.fail("began to decode"))


def deep_grey():
    """16-bit values whose high byte alone, or whose clipped value, would be wrong."""
    return (grey_photo().astype(np.uint32) * 257 + 100).clip(0, 65535).astype(np.uint16)


def palette_image():
    """An image of mode P, its colours and its indices."""
    colors = np.array([[255, 0, 0], [0, 200, 0], [10, 20, 240], [250, 250, 5]], dtype=np.uint8)
    indices = (np.mgrid[0:HEIGHT, 0:WIDTH].sum(axis=0) // 5 % 4).astype(np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colors.tobytes())
    assert image.mode == "P"
    return image, colors, indices


def merge(color, alpha):
    return Image.fromarray(np.dstack([color, alpha]))


def grey_level(lightness):
    """The sRGB value of a neutral colour of CIE L* 0 to 100."""
    light = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    return 255 * np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)


def exif(orientation):
    block = Image.Exif()
    block[ORIENTATION] = orientation
    return block


def srgb_profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def png(width, height, *, depth=8, kind=2, key=None, compressed=b""):
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    chunks = {b"IHDR": header, b"tRNS": key, b"IDAT": compressed, b"IEND": b""}
    return join_chunks({name: content for name, content in chunks.items() if content is not None}.items())


def join_chunks(chunks):
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def tiff(width, bits, pixels, *, sign=1):
    """One row of greys, as the specification (TIFF 6.0, sections 2 and 19) has them."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(pixels), 339: sign}
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)
