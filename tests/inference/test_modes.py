import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch
from image_files import (
    HEIGHT,
    WIDTH,
    alpha_photo,
    as_array,
    color_photo,
    deep_grey,
    difference,
    grey_level,
    grey_photo,
    merge,
    palette_image,
    png,
    save,
    stacked,
    tiff,
)
from PIL import Image, ImageOps

from perceptual.inference import images


def bilevel():
    return grey_photo() > 100


def cmyk():
    """Inks, H×W×4, and their colour when nothing is known of the inks: each takes its part of the light."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    inks = np.stack([8 * x, 10 * y, 255 - 8 * x, 3 * x + y], axis=-1).astype(np.uint8)
    light = 1 - inks / 255.0
    return inks, (255 * light[..., :3] * light[..., 3:]).round()


def lab_image():
    """Neutral colours of every lightness in mode LAB."""
    lightness = np.linspace(0, 255, WIDTH).round().astype(np.uint8)
    bands = np.full((HEIGHT, WIDTH, 3), 0, dtype=np.uint8)
    bands[..., 0] = lightness
    return Image.frombytes("LAB", (WIDTH, HEIGHT), bands.tobytes()), stacked(
        np.repeat(grey_level(lightness / 2.55)[None], HEIGHT, axis=0)
    )


def same(name, data, color, alpha=None, within=0):
    return pytest.param(data, color, alpha, within, id=name)


def mode_cases():
    color, grey, alpha = color_photo(), grey_photo(), alpha_photo()
    rgb, rgba, luma = Image.fromarray(color), merge(color, alpha), Image.fromarray(grey)
    palette, colors, indices = palette_image()
    opacity = np.array([0, 90, 180, 255], dtype=np.uint8)
    inks, inked = cmyk()
    lab, neutral = lab_image()
    deep = deep_grey()
    deep_as_bytes = stacked((deep / 257.0).round())
    return [
        same("png-rgb", save(rgb, "PNG"), color),
        same("png-rgba", save(rgba, "PNG"), color, alpha),
        same("png-l", save(luma, "PNG"), stacked(grey)),
        same("png-la", save(merge(grey, alpha), "PNG"), stacked(grey), alpha),
        same("png-1", save(Image.fromarray(bilevel()), "PNG"), stacked(bilevel() * 255)),
        same("png-p", save(palette, "PNG"), colors[indices]),
        same("png-p-index", save(palette, "PNG", transparency=2), colors[indices], np.where(indices == 2, 0, 255)),
        same("png-p-table", save(palette, "PNG", transparency=opacity.tobytes()), colors[indices], opacity[indices]),
        same("png-l-key", save(luma, "PNG", transparency=90), stacked(grey), np.where(grey == 90, 0, 255)),
        same(
            "png-rgb-key",
            save(rgb, "PNG", transparency=tuple(map(int, color[3, 4]))),
            color,
            np.where((color == color[3, 4]).all(axis=-1), 0, 255),
        ),
        same("png-16", save(Image.fromarray(deep), "PNG"), deep_as_bytes),
        same(
            "png-16-key",
            save(Image.fromarray(deep), "PNG", transparency=int(deep[3, 4])),
            deep_as_bytes,
            np.where(deep == deep[3, 4], 0, 255),
        ),
        same("tiff-16", save(Image.fromarray(deep), "TIFF"), deep_as_bytes),
        same("tiff-16-big-endian", save(Image.fromarray(deep.astype(">u2")), "TIFF"), deep_as_bytes),
        same(
            "tiff-16-bits-white-is-zero", save(Image.fromarray(65535 - deep), "TIFF", tiffinfo={262: 0}), deep_as_bytes
        ),
        same("tiff-i-16-bits", save(Image.fromarray(deep.astype(np.int32)), "TIFF"), deep_as_bytes),
        same("tiff-i-8-bits", save(Image.fromarray(grey.astype(np.int32)), "TIFF"), stacked(grey)),
        same("tiff-i-31-bits", save(Image.fromarray(grey.astype(np.int32) << 23), "TIFF"), stacked(grey), within=1),
        same("tiff-f-to-1", save(Image.fromarray(grey.astype(np.float32) / 255), "TIFF"), stacked(grey)),
        same("tiff-f-to-255", save(Image.fromarray(grey.astype(np.float32)), "TIFF"), stacked(grey)),
        same("tiff-rgb-lzw", save(rgb, "TIFF", compression="tiff_lzw"), color),
        same("tiff-rgba", save(rgba, "TIFF"), color, alpha),
        same("tiff-cmyk", save(Image.frombytes("CMYK", (WIDTH, HEIGHT), inks.tobytes()), "TIFF"), inked, within=1),
        same("tiff-lab", save(lab, "TIFF"), neutral, within=2),
        same("tiff-1-fax", save(Image.fromarray(bilevel()), "TIFF", compression="group4"), stacked(bilevel() * 255)),
        same("jpeg-rgb", save(rgb, "JPEG", quality=100, subsampling=0), color, within=3),
        same("jpeg-progressive", save(rgb, "JPEG", quality=100, subsampling=0, progressive=True), color, within=3),
        same("jpeg-l", save(luma, "JPEG", quality=100), stacked(grey), within=2),
        same("webp-rgb", save(rgb, "WEBP", lossless=True), color),
        same("webp-rgba", save(rgba, "WEBP", lossless=True, exact=True), color, alpha),
        same("bmp-rgb", save(rgb, "BMP"), color),
        same("bmp-p", save(palette, "BMP"), colors[indices]),
        same("gif", save(palette, "GIF"), colors[indices]),
        same("gif-key", save(palette, "GIF", transparency=1), colors[indices], np.where(indices == 1, 0, 255)),
        same(
            "gif-first-frame", save(palette, "GIF", save_all=True, append_images=[ImageOps.flip(rgb)]), colors[indices]
        ),
    ]


@pytest.mark.parametrize(("data", "color", "alpha", "within"), mode_cases())
def test_every_mode_becomes_srgb_with_its_alpha_apart(data, color, alpha, within):
    picture = images.decode(data)
    assert difference(picture, color) <= within
    if alpha is None:
        assert picture.alpha is None
    else:
        assert picture.alpha.dtype == torch.uint8
        np.testing.assert_array_equal(as_array(picture.alpha)[..., 0], alpha)


def test_adobe_cmyk_jpeg_stores_its_inks_inverted():
    inks, inked = cmyk()
    data = save(Image.frombytes("CMYK", (WIDTH, HEIGHT), inks.tobytes()), "JPEG", quality=100, subsampling=0)
    assert b"Adobe" in data
    assert difference(images.decode(data), inked) <= 4


@pytest.mark.parametrize("mode", ["PA", "La", "RGBa", "HSV", "YCbCr", "RGBX", "I;16B"])
def test_modes_that_only_exist_in_memory(mode):
    color = {"PA": (200, 200), "La": (100, 255), "RGBa": (10, 20, 30, 255), "HSV": (0, 0, 70), "YCbCr": (80, 128, 128)}
    expected = {"PA": (200,) * 3, "La": (100,) * 3, "RGBa": (10, 20, 30), "HSV": (70,) * 3, "YCbCr": (80,) * 3}
    color |= {"RGBX": (1, 2, 3, 4), "I;16B": 257 * 66}
    expected |= {"RGBX": (1, 2, 3), "I;16B": (66,) * 3}
    image = Image.new(mode, (3, 2), color[mode])
    if mode == "PA":
        image.putpalette(bytes(range(256)) * 3, "RGB")
        expected[mode] = tuple(image.convert("RGB").getpixel((0, 0)))
    picture = images.from_pil(image)
    assert picture.rgb.shape == (3, 2, 3)
    assert tuple(picture.rgb[:, 0, 0].tolist()) == expected[mode]
    if mode == "PA":
        assert picture.alpha.unique().tolist() == [200]


def test_not_a_number_and_infinity_in_float_images_are_black():
    values = np.array([[0.0, 0.5, 1.0, np.nan, np.inf, -np.inf, -3.0]], dtype=np.float32)
    assert images.from_pil(Image.fromarray(values)).rgb[0, 0].tolist() == [0, 128, 255, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("depth", "kind", "row", "key", "levels", "alpha"),
    [
        (2, 0, b"\x1b", (1,), [0, 85, 170, 255], [255, 0, 255, 255]),
        (4, 0, b"\x37", (3,), [51, 119], [0, 255]),
        (16, 2, struct.pack(">6H", 1000, 2000, 3000, 50000, 2000, 3000), (1000, 2000, 3000), [3, 195], [0, 255]),
    ],
)
def test_a_png_s_transparent_colour_at_every_depth(depth, kind, row, key, levels, alpha):
    key = struct.pack(f">{len(key)}H", *key)
    data = png(len(levels), 1, depth=depth, kind=kind, key=key, compressed=zlib.compress(b"\0" + row))
    for picture in (images.decode(data), images.from_pil(Image.open(BytesIO(data)))):
        assert picture.rgb[0].tolist() == [levels] and picture.alpha.tolist() == [[alpha]]


@pytest.mark.parametrize(
    ("bits", "pixels", "sign"),
    [
        (12, bytes([0xFF, 0xF8, 0x00]), 1),
        (16, struct.pack("<2H", 0xFFFF, 0x8000), 1),
        (16, struct.pack("<2h", 2**15 - 1, 2**14), 2),
        (32, struct.pack("<2I", 2**32 - 1, 2**31), 1),
        (32, struct.pack("<2i", 2**31 - 1, 2**30), 2),
    ],
)
def test_white_in_a_tiff_is_what_its_bits_can_hold(bits, pixels, sign):
    assert images.decode(tiff(2, bits, pixels, sign=sign)).rgb[0].tolist() == [[255, 128]]
