import struct

import numpy as np
import pytest
from image_files import (
    alpha_photo,
    as_array,
    color_photo,
    difference,
    grey_level,
    grey_photo,
    merge,
    palette_image,
    save,
    srgb_profile,
    stacked,
)
from PIL import Image, ImageCms

from perceptual.inference import images
from perceptual.inference.codecs import colour
from perceptual.inference.codecs.metadata import Metadata


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
