import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps, features

from perceptual.errors import ImageTooLarge, InputError, InvalidImage, UnsupportedFormat
from perceptual.inference import images
from perceptual.inference.codecs import colour
from perceptual.inference.codecs.metadata import Metadata
from perceptual.inference.images import Picture

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


# ---- Modes and formats


def bilevel():
    return grey_photo() > 100


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


def cmyk():
    """Inks, H×W×4, and their colour when nothing is known of the inks: each takes its part of the light."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    inks = np.stack([8 * x, 10 * y, 255 - 8 * x, 3 * x + y], axis=-1).astype(np.uint8)
    light = 1 - inks / 255.0
    return inks, (255 * light[..., :3] * light[..., 3:]).round()


def merge(color, alpha):
    return Image.fromarray(np.dstack([color, alpha]))


def grey_level(lightness):
    """The sRGB value of a neutral colour of CIE L* 0 to 100."""
    light = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    return 255 * np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)


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


# ---- Orientation

# Where the first row and the first column of the stored pixels lie in the upright picture (EXIF 2.3, 4.6.4 A).
FIRST_ROW_AND_COLUMN = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def stored(upright, orientation):
    row, column = FIRST_ROW_AND_COLUMN[orientation]
    pixels = upright.swapaxes(0, 1) if row in ("left", "right") else upright
    if row in ("right", "bottom"):
        pixels = pixels[::-1]
    if column in ("right", "bottom"):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def exif(orientation):
    block = Image.Exif()
    block[ORIENTATION] = orientation
    return block


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("format", "options", "within"),
    [
        ("JPEG", {"quality": 100, "subsampling": 0}, 5),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
    ],
)
def test_orientation(orientation, format, options, within):
    upright = color_photo()
    data = save(Image.fromarray(stored(upright, orientation)), format, exif=exif(orientation), **options)
    assert difference(images.decode(data), upright) <= within


def test_orientation_turns_alpha_too():
    upright = np.dstack([color_photo(), alpha_photo()])
    picture = images.decode(save(Image.fromarray(stored(upright, 6)), "PNG", exif=exif(6)))
    np.testing.assert_array_equal(as_array(torch.cat([picture.rgb, picture.alpha])), upright)


def test_orientation_of_a_pil_image_that_is_not_loaded_yet():
    upright = color_photo()
    data = save(Image.fromarray(stored(upright, 8)), "PNG", exif=exif(8))
    assert difference(images.from_pil(Image.open(BytesIO(data))), upright) == 0


@pytest.mark.parametrize("orientation", [0, 9, 700])
def test_unknown_orientation_is_ignored(orientation):
    data = save(Image.fromarray(color_photo()), "PNG", exif=exif(orientation))
    assert difference(images.decode(data), color_photo()) == 0


def test_odd_tag_beside_the_orientation():
    block = exif(6)
    block[0x0128] = 2
    odd = block.tobytes().replace(b"\x01\x28\x00\x03", b"\x01\x28\x00\x02")  # a number that claims to be text
    upright = color_photo()
    data = save(Image.fromarray(stored(upright, 6)), "PNG", exif=odd)
    with pytest.raises(Exception, match="required argument"):
        ImageOps.exif_transpose(Image.open(BytesIO(data)))
    assert difference(images.decode(data), upright) == 0


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_lose_the_picture():
    data = save(Image.fromarray(color_photo()), "PNG", exif=b"Exif\0\0MM\0*garbage")
    assert difference(images.decode(data), color_photo()) == 0


def test_what_is_transparent_is_white_when_laid_on_it():
    picture = Picture(torch.tensor([[[10, 10, 10]]] * 3, dtype=torch.uint8), torch.tensor([[[0, 255, 51]]]).byte())
    assert picture.opaque()[0].tolist() == [[255, 10, 206]]  # 0.2 · 10 + 0.8 · 255
    assert Picture(picture.rgb).opaque() is picture.rgb


# ---- Colour profiles


def srgb_profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def profile_with(device, space, connection, tags):
    """An ICC profile from its tags' contents (ICC.1:2010, 7)."""
    start = 128 + 4 + 12 * len(tags)
    table, contents = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, start + len(contents), len(content))
        contents += content
    header = struct.pack(
        ">I4sI4s4s4s12x4s24xI3I48x",
        start + len(contents),
        b"lcms",
        0x02400000,
        device,
        space,
        connection,
        b"acsp",
        0,
        *(0xF6D6, 0x10000, 0xD32D),  # the D50 white
    )
    return header + table + contents


def swapped_profile():
    """sRGB but for the colours of its red and green light, which are exchanged."""
    profile = srgb_profile()
    return profile.replace(b"rXYZ", b"#XYZ").replace(b"gXYZ", b"rXYZ").replace(b"#XYZ", b"gXYZ")


def linear_profile():
    """sRGB's colours, but values proportional to light."""
    profile = bytearray(srgb_profile())
    at = -1
    while (at := profile.find(b"para", at + 1)) >= 0:
        profile[at + 8 : at + 16] = struct.pack(">HHI", 0, 0, 0x10000)  # x to the power of 1
    return bytes(profile)


def linear_grey_profile():
    curve = b"curv" + bytes(4) + struct.pack(">I", 0)  # no entries: proportional
    white = b"XYZ " + bytes(4) + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    return profile_with(b"scnr", b"GRAY", b"XYZ ", {b"kTRC": curve, b"wtpt": white})


def printer_profile():
    """Inks of which cyan, magenta and yellow leave a grey of L* 50, 30 and 80, and any two of the four black."""
    identity = struct.pack(">9i", *(0x10000 * (i % 4 == 0) for i in range(9)))
    levels = []
    for inks in np.ndindex(2, 2, 2, 2):
        lightness = 100 if sum(inks) == 0 else 0
        if sum(inks) == 1:
            lightness = (50, 30, 80, 0)[inks.index(1)]
        levels += [round(lightness * 2.55), 128, 128]
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + bytes(levels) + ramp * 3
    return profile_with(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})


def from_linear(values):
    light = values / 255.0
    return 255 * np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)


def test_srgb_profile_changes_nothing():
    data = save(Image.fromarray(color_photo()), "PNG", icc_profile=srgb_profile())
    assert difference(images.decode(data), color_photo()) == 0


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_profile_with_exchanged_primaries(format):
    options = {"lossless": True} if format == "WEBP" else {}
    data = save(Image.fromarray(color_photo()), format, icc_profile=swapped_profile(), **options)
    assert difference(images.decode(data), color_photo()[..., [1, 0, 2]]) <= 1


def test_profile_of_linear_light():
    data = save(Image.fromarray(color_photo()), "PNG", icc_profile=linear_profile())
    assert difference(images.decode(data), from_linear(color_photo())) <= 1.5


def test_profile_leaves_alpha_alone():
    picture = images.decode(save(merge(color_photo(), alpha_photo()), "PNG", icc_profile=swapped_profile()))
    assert difference(picture, color_photo()[..., [1, 0, 2]]) <= 1
    np.testing.assert_array_equal(as_array(picture.alpha)[..., 0], alpha_photo())


def test_profile_of_a_palette():
    image, colors, indices = palette_image()
    picture = images.decode(save(image, "PNG", icc_profile=swapped_profile()))
    assert difference(picture, colors[indices][..., [1, 0, 2]]) <= 1


def test_grey_profile():
    data = save(Image.fromarray(grey_photo()), "PNG", icc_profile=linear_grey_profile())
    assert difference(images.decode(data), stacked(from_linear(grey_photo()))) <= 1.5


def test_grey_picture_with_the_profile_of_an_rgb_space():
    data = save(Image.fromarray(grey_photo()), "PNG", icc_profile=linear_profile())
    assert difference(images.decode(data), stacked(from_linear(grey_photo()))) <= 1.5


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_with_the_profile_of_its_inks(format):
    paper_and_inks = np.repeat(np.eye(5, 4, -1, dtype=np.uint8) * 255, 16, axis=0)[None].repeat(16, axis=0)
    image = Image.frombytes("CMYK", (80, 16), paper_and_inks.tobytes())
    options = {"quality": 100, "subsampling": 0} if format == "JPEG" else {}
    picture = images.decode(save(image, format, icc_profile=printer_profile(), **options))
    found = as_array(picture.rgb)[8, 8::16]
    expected = stacked(grey_level(np.array([100, 50, 30, 80, 0])))
    assert np.abs(found - expected).max() <= 3


def test_a_grey_picture_with_a_profile_of_inks_is_left_alone():
    grey = Image.new("L", (4, 3), 77)
    with pytest.MonkeyPatch.context() as patch:  # as Pillow before 13 would, reading past the pixels' end
        patch.setattr(ImageCms, "buildTransform", lambda *_: pytest.fail("the profile is of another mode"))
        assert colour.to_srgb(grey, Metadata(profile=printer_profile())).getpixel((0, 0)) == (77, 77, 77)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_a_file_that_says_it_has_no_pixels_is_refused(size):
    with pytest.raises(InvalidImage, match="the image has no pixels"):
        images.Limits(scale=4).check(*size)


@pytest.mark.parametrize(
    ("size", "format", "message"),
    [
        ((65536, 1), "png", "65536×1 pixels; the limit is 65535 a side"),
        ((1, 70000), None, "1×70000 pixels; the limit is 65535 a side"),
        ((17000, 2), "webp", "17000×2 pixels; the limit is 16383 a side in webp: send 16383×1 at most"),
    ],
)
def test_thin_pictures_are_limited_before_they_are_decoded(size, format, message, monkeypatch):
    data = save(Image.new("L", size), "PNG")
    forbid_decoding(monkeypatch)
    with pytest.raises(ImageTooLarge, match=message):
        images.decode(data, format=format)


@pytest.mark.parametrize("profile", [b"garbage", srgb_profile()[:200], printer_profile(), linear_grey_profile()])
def test_damaged_or_mismatched_profile_is_ignored(profile):
    data = save(Image.fromarray(color_photo()), "PNG", icc_profile=profile)
    assert difference(images.decode(data), color_photo()) == 0


def test_a_profile_of_another_type_is_ignored():
    data = save(Image.fromarray(color_photo()), "TIFF", icc_profile=swapped_profile())
    entry = struct.pack("<HH", 34675, 7)
    assert data.count(entry) == 1
    as_text = data.replace(entry, struct.pack("<HH", 34675, 2))
    assert difference(images.decode(as_text), color_photo()) == 0


# ---- What is refused


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


def test_colours_of_what_is_transparent_decide_nothing():
    random = np.random.default_rng(0)
    color, alpha = random.integers(0, 256, (90, 70, 3), dtype=np.uint8), np.zeros((90, 70), np.uint8)
    alpha[60:80, 10:30], alpha[61, 11], color[60:80, 10:30] = 255, 3, (200, 100, 50)
    other = np.where(alpha[..., None] > 0, color, 255 - color)
    one, two = (images.from_pil(merge(each, alpha)).without_hidden_colors() for each in (color, other))
    assert torch.equal(one.rgb, two.rgb) and torch.equal(one.alpha[0], torch.from_numpy(alpha))
    assert np.array_equal(as_array(one.rgb)[alpha > 0], color[alpha > 0])
    assert np.abs(as_array(one.rgb).astype(int) - (200, 100, 50)).max() <= 4  # around it as it is, but for rounding
    gone = images.from_pil(merge(color, np.zeros_like(alpha))).without_hidden_colors()
    assert gone.rgb.max() == 0
    faint = np.broadcast_to(np.arange(70).clip(40, 43) - 40, (90, 70)).astype(np.uint8)  # alpha from 0 to 3
    orange = images.from_pil(merge(np.where(faint[..., None] > 0, (200, 100, 50), 9).astype(np.uint8), faint))
    assert np.abs(as_array(orange.without_hidden_colors().rgb).astype(int) - (200, 100, 50)).max() <= 4
    opaque = images.from_pil(merge(color, np.full_like(alpha, 9)))
    assert opaque.without_hidden_colors() is opaque


def claims_to_be_huge():
    photo = Image.fromarray(color_photo())
    jpeg, gif, bmp, tiff = (bytearray(save(photo, format)) for format in ("JPEG", "GIF", "BMP", "TIFF"))
    jpeg_size = jpeg.index(b"\xff\xc0") + 5
    jpeg[jpeg_size : jpeg_size + 4] = struct.pack(">HH", 65500, 65500)
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    bmp[18:26] = struct.pack("<ii", 100_000, 100_000)
    for tag, size in ((0x0100, WIDTH), (0x0101, HEIGHT)):
        entry = next(
            struct.pack("<HHII", tag, kind, 1, size)
            for kind in (3, 4)
            if struct.pack("<HHII", tag, kind, 1, size) in tiff
        )
        tiff = tiff.replace(entry, struct.pack("<HHII", tag, 4, 1, 100_000))
    return {"PNG": png(100_000, 100_000), "JPEG": jpeg, "GIF": gif, "BMP": bmp, "TIFF": tiff}


@pytest.mark.filterwarnings("error")  # Pillow warns of large images by a limit of its own
@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF"])
def test_pixel_limit_is_checked_before_decoding(format, monkeypatch):
    data = claims_to_be_huge()[format]
    forbid_decoding(monkeypatch)
    with pytest.raises(ImageTooLarge, match=r"\d+×\d+ pixels; the limit is 67108864"):
        images.decode(data)


def test_tiles_of_a_tiff_are_limited_too():
    data = save(Image.fromarray(color_photo()), "TIFF", tiffinfo={65000: 65536, 65001: 65536, 65002: 8})
    for private, tag in ((65000, 322), (65001, 323), (65002, 324)):
        for kind in (3, 4):
            data = data.replace(struct.pack("<HH", private, kind), struct.pack("<HH", tag, kind))
    with pytest.raises(ImageTooLarge, match=f"tiles of 65536×65536 pixels, and {WIDTH}×{HEIGHT} in all"):
        images.decode(data)


def test_what_is_reduced_first_is_told_as_such():
    data = save(Image.new("L", (600, 400)), "PNG")
    with pytest.raises(ImageTooLarge, match="the image has, reduced, 300×200 pixels, 8 times larger 2400×1600; the"):
        images.decode(data, max_pixels=300_000, scale=8, max_size=300)


@pytest.mark.filterwarnings("error")
def test_pixel_limit_may_lie_above_that_of_pillow():
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageTooLarge, match="the limit is 200000000 pixels in all"):
        images.decode(png(100_000, 100_000), max_pixels=200_000_000)
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("format", images.READABLE)
def test_pixel_limit_is_inclusive(format, monkeypatch):
    require_writer(format)
    data = save(Image.fromarray(color_photo()), format)
    assert images.decode(data, max_pixels=HEIGHT * WIDTH).rgb.shape == (3, HEIGHT, WIDTH)
    forbid_decoding(monkeypatch)
    with pytest.raises(ImageTooLarge, match=f"{WIDTH}×{HEIGHT}"):
        images.decode(data, max_pixels=HEIGHT * WIDTH - 1)


@pytest.mark.parametrize("data", [b"", b"\0", b"hello, world", b"<html></html>", b'{"a": 1}', b"Please", bytes(1000)])
def test_not_an_image(data):
    with pytest.raises(InvalidImage, match="send JPEG, PNG, WEBP, BMP, TIFF, GIF, AVIF or HEIC"):
        images.decode(data)


@pytest.mark.parametrize("format", ["DDS", "EPS", "ICO", "JPEG2000", "PCX", "PDF", "PPM", "QOI", "SGI", "TGA"])
def test_other_image_formats_are_named(format):
    Image.init()  # knows all formats only then
    if format not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {format}")
    with pytest.raises(
        UnsupportedFormat, match=r"is not supported; send JPEG, PNG, WEBP, BMP, TIFF, GIF, AVIF or HEIC"
    ):
        images.decode(save(Image.fromarray(color_photo()), format))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("camera raw", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom"),
        ("JPEG XL", b"\xff\x0a\xfa\x7f"),
        ("SVG", b'<?xml version="1.0"?>\n<!-- a drawing -->\n<svg xmlns="http://www.w3.org/2000/svg">'),
        ("SVG", b"<svg>"),
        ("Photoshop", b"8BPS\0\1"),
    ],
)
def test_image_formats_that_pillow_does_not_write(name, data):
    with pytest.raises(UnsupportedFormat, match=f"^{name} is not supported"):
        images.decode(data)


def photos():
    """One file of each format and way of compression."""
    rgb, rgba, palette = Image.fromarray(color_photo()), merge(color_photo(), alpha_photo()), palette_image()[0]
    return {
        "jpeg": save(rgb, "JPEG", exif=exif(6), icc_profile=srgb_profile()),
        "jpeg-progressive": save(rgb, "JPEG", progressive=True),
        "png": save(rgba, "PNG", exif=exif(6), icc_profile=srgb_profile()),
        "png-palette": save(palette, "PNG", transparency=2),
        "webp": save(rgba, "WEBP", exif=exif(6)),
        "webp-lossless": save(rgba, "WEBP", lossless=True),
        "bmp": save(rgb, "BMP"),
        "gif": save(palette, "GIF", transparency=2),
        "tiff": save(rgb, "TIFF", exif=exif(6)),
        "tiff-lzw": save(rgb, "TIFF", compression="tiff_lzw"),
        "tiff-jpeg": save(rgb, "TIFF", compression="jpeg"),
        "tiff-fax": save(rgb.convert("1"), "TIFF", compression="group4"),
        "tiff-16": save(Image.fromarray(deep_grey()), "TIFF"),
    }


@pytest.mark.parametrize("name", photos())
@pytest.mark.filterwarnings("ignore")  # of Pillow, over odd metadata
def test_truncated_files_are_refused(name):
    data = photos()[name]
    whole = images.decode(data)
    for length in range(0, len(data), max(1, len(data) // 40)):
        try:
            picture = images.decode(data[:length])
        except InvalidImage:
            continue
        torch.testing.assert_close(picture.rgb, whole.rgb, rtol=0, atol=0)  # only metadata is missing at the end
    with pytest.raises(InvalidImage):
        images.decode(data[: len(data) // 2])


def with_valid_checksums(data):
    """A PNG as if it had been damaged before it was written: otherwise nobody looks further than its checksums."""
    place, chunks = 8, []
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunks.append((bytes(data[place + 4 : place + 8]), bytes(data[place + 8 : place + 8 + length])))
        place += 12 + length
    return bytearray(join_chunks(chunks))


def test_a_palette_picture_without_a_palette_is_refused():
    with pytest.raises(InvalidImage, match="truncated or damaged"):
        images.decode(png(2, 1, kind=3, compressed=zlib.compress(bytes(3))))


@pytest.mark.parametrize("name", photos())
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_raise_only_our_errors(name):
    random = np.random.default_rng(7)
    original = photos()[name]
    refused = 0
    for _ in range(150):
        data = bytearray(original)
        reach = len(data) if random.random() < 0.5 else min(len(data), 100)
        for position in random.integers(0, reach, size=random.integers(1, 6)):
            data[position] = random.integers(0, 256)
        if name.startswith("png") and random.random() < 0.8:
            data = with_valid_checksums(data)
        try:
            picture = images.decode(data, max_pixels=1_000_000)
        except InputError:
            refused += 1
        else:
            assert picture.rgb.dtype == torch.uint8
    assert refused > 0


@pytest.mark.parametrize("make", [lambda folder: folder / "missing.jpg", lambda folder: folder, lambda folder: "a\0b"])
def test_read_names_a_path_that_cannot_be_read(tmp_path, make):
    path = make(tmp_path)
    with pytest.raises(InvalidImage) as failure:
        images.read(path)
    assert str(failure.value).startswith(f"cannot read {path}: ")


def test_read(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"content")
    assert images.read(tmp_path / "photo.png") == images.read(str(tmp_path / "photo.png")) == b"content"


# ---- Out


def picture_of(*colors, alpha=None, size=16):
    """Stripes of one colour each."""
    rgb = torch.tensor(colors, dtype=torch.uint8).T[:, None].repeat_interleave(size, dim=2).repeat(1, size, 1)
    return Picture(rgb, None if alpha is None else torch.full_like(rgb[:1], alpha))


def test_png_is_exact():
    original = images.decode(save(merge(color_photo(), alpha_photo()), "PNG"))
    data = images.encode(original, "png")
    assert Image.open(BytesIO(data)).format == "PNG"
    again = images.decode(data)
    assert torch.equal(again.rgb, original.rgb)
    assert torch.equal(again.alpha, original.alpha)


def test_jpeg_lays_alpha_on_white():
    data = images.encode(picture_of((200, 0, 40), (0, 0, 0), alpha=128), "jpeg", quality=100)
    image = Image.open(BytesIO(data))
    assert (image.format, image.mode) == ("JPEG", "RGB")
    for x, color in ((4, (200, 0, 40)), (28, (0, 0, 0))):
        expected = [value * 128 / 255 + 255 * 127 / 255 for value in color]
        assert np.abs(np.array(image.getpixel((x, 8))) - expected).max() <= 4


def test_webp_keeps_alpha():
    data = images.encode(picture_of((200, 0, 40), alpha=77), "webp")
    assert Image.open(BytesIO(data)).format == "WEBP"
    again = images.decode(data)
    assert again.alpha.unique().tolist() == [77]
    assert (again.rgb[:, 8, 8].int() - torch.tensor([200, 0, 40])).abs().max() <= 6


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_quality(format):
    noise = Picture(torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))
    assert len(images.encode(noise, format, quality=10)) < len(images.encode(noise, format, quality=95)) / 2


@pytest.mark.parametrize(("format", "limit"), [("jpeg", 65500), ("webp", 16383)])
def test_sides_longer_than_a_format_holds(format, limit):
    longest = Picture(torch.zeros(3, 1, limit, dtype=torch.uint8))
    assert Image.open(BytesIO(images.encode(longest, format))).size == (limit, 1)
    with pytest.raises(ImageTooLarge, match=f"{format} holds at most {limit} pixels a side, not 1×{limit + 1}"):
        images.encode(Picture(torch.zeros(3, limit + 1, 1, dtype=torch.uint8)), format)


def test_to_pil():
    picture = images.decode(save(merge(color_photo(), alpha_photo()), "PNG"))
    np.testing.assert_array_equal(np.array(picture.to_pil()), np.dstack([color_photo(), alpha_photo()]))
    np.testing.assert_array_equal(np.array(Picture(picture.rgb).to_pil()), color_photo())


# ---- Shrinking


@pytest.mark.parametrize("max_size", [None, WIDTH, WIDTH + 1])
def test_shrink_never_enlarges(max_size):
    picture = images.from_pil(Image.fromarray(color_photo()))
    assert images.shrink(picture, max_size) is picture


@pytest.mark.parametrize(
    ("size", "max_size", "expected"),
    [((400, 300), 100, (100, 75)), ((300, 400), 100, (75, 100)), ((1000, 3), 16, (16, 1))],
)
def test_shrink_keeps_the_shape(size, max_size, expected):
    picture = images.shrink(images.from_pil(Image.new("RGB", size)), max_size)
    assert picture.to_pil().size == expected
    assert picture.alpha is None


def test_shrink_is_antialiased():
    y, x = np.mgrid[0:256, 0:256]
    checkerboard = images.from_pil(Image.fromarray((((x + y) % 2) * 255).astype(np.uint8)))
    small = images.shrink(checkerboard, 50)
    assert (small.rgb[:, 2:-2, 2:-2].int() - 127).abs().max() <= 8


def test_shrink_keeps_invisible_colors_out():
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (29, 0, 64, 64))  # an edge that falls inside a pixel of the small picture
    small = images.shrink(images.from_pil(image), 16)
    visible = small.alpha[0] > 16
    assert 0 < small.alpha[0, 8, 7] < 255
    assert small.rgb[0][visible].max() <= 8
    assert small.rgb[2][visible].min() >= 247
