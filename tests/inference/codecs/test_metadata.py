"""What cannot be read of a file's metadata is as if it were not there; damaged pixels are refused."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from codec_files import COLORS, SIDE, chunk, jpeg, jpeg_with, png_of, png_with, segment, tiff, tiff_tags
from PIL import Image

from perceptual.errors import InvalidImage
from perceptual.inference import images
from perceptual.inference.codecs.metadata import Metadata

EXIF = 0xE1


def exif_block(orientation=1, **texts):
    block = Image.Exif()
    block[0x0112] = orientation
    for tag, text in texts.items():
        block.get_ifd(0x8769)[int(tag[1:])] = text
    return block.tobytes()


def icc(number, of, content=b""):
    return segment(0xE2, b"ICC_PROFILE\0" + bytes([number, of]) + content)


FILES = {
    "a text of 2 MiB": png_with(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2 << 20)))),
    "a profile of 2 MiB": png_with(chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(2 << 20)))),
    "a profile of 100 MiB": png_with(chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(100 << 20)))),
    "a profile cut short": png_with(chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(100))[:9])),
    "no profile in iCCP": png_with(chunk(b"iCCP", b"p")),
    **{
        f"{name}, {what}": png_with(chunk(name.encode(), content, checksum))
        for name in ("iCCP", "pHYs", "gAMA", "cHRM", "sRGB", "acTL", "eXIf", "tEXt")
        for what, content, checksum in (
            ("wrong checksum", bytes(9), 1),
            ("one byte", b"\0", None),
            ("nothing", b"", None),
            ("more than it holds", bytes(100), None),
        )
    },
    "a short JFIF": jpeg_with(segment(0xE0, b"JFIF\0"), app0=False),
    "a short Adobe": jpeg_with(segment(0xEE, b"Adobe\0")),
    "an empty ICC_PROFILE": jpeg_with(segment(0xE2, b"ICC_PROFILE\0")),
    "the second of two parts of a profile": jpeg_with(icc(2, 2, b"x")),
    "a profile that is none": jpeg_with(icc(1, 1, b"x")),
    "an empty Exif": jpeg_with(segment(EXIF, b"Exif\0\0")),
    "a short Exif": jpeg_with(segment(EXIF, b"Exif\0\0II*\0\x08")),
    "an Exif that claims much": jpeg_with(segment(EXIF, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(100))),
    "a byte after SOI": jpeg()[:2] + b"\0" + jpeg()[2:],
    "a comment that is empty": jpeg_with(segment(0xFE, b"")),
    "an MPF": jpeg_with(segment(0xE2, b"MPF\0garbage")),
    "something after the end": jpeg() + jpeg(),
    "a TIFF's profile outside the file": tiff(tiff_tags(8, 2, 3, t34675=(1, [0] * 5)), [COLORS.tobytes()]).replace(
        struct.pack("<HHI", 34675, 1, 5), struct.pack("<HHI", 34675, 1, 10**6)
    ),
    "a TIFF's resolution that is text": tiff(tiff_tags(8, 2, 3, t282=(2, [65] * 9)), [COLORS.tobytes()]),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FILES)
def test_damaged_metadata_does_not_lose_the_picture(name):
    rgb = images.decode(FILES[name]).rgb.permute(1, 2, 0).numpy()
    assert rgb.shape == COLORS.shape
    assert np.abs(rgb.astype(int) - COLORS).max() <= (3 if FILES[name].startswith(b"\xff\xd8") else 0)


@pytest.mark.parametrize("name", [b"IHDR", b"IDAT"])
def test_a_wrong_checksum_of_what_decides_the_pixels_is_refused(name):
    data = bytearray(png_with())
    place = data.index(name)
    data[place + 4 + int.from_bytes(data[place - 4 : place], "big")] ^= 1
    with pytest.raises(InvalidImage, match=rf"damaged: the checksum of {name.decode()} is wrong"):
        images.decode(data)


@pytest.mark.parametrize("kind", ["BYTE", "SHORT", "LONG"])
def test_the_orientation_of_a_tiff_may_be_of_any_integer_type(kind):
    orientation = ({"BYTE": 1, "SHORT": 3, "LONG": 4}[kind], [3])
    picture = images.decode(tiff(tiff_tags(8, 2, 3, t274=orientation), [COLORS.tobytes()]))
    np.testing.assert_array_equal(picture.rgb.permute(1, 2, 0).numpy(), COLORS[::-1, ::-1])


def gamma_png(value, level, *others):
    return png_of(1, 1, 8, 0, [bytes([level])], chunk(b"gAMA", struct.pack(">I", value)), *others)


@pytest.mark.parametrize(("value", "expected"), [(100_000, 188), (45_455, 128), (55_556, 99 + 55), (22_727, 56)])
def test_gamma_without_a_profile(value, expected):
    light = (128 / 255) ** (100_000 / value)
    right = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    found = int(images.decode(gamma_png(value, 128)).rgb[0, 0, 0])
    assert abs(found - (128 if value == 45_455 else right)) <= 0.5
    if value in (100_000, 45_455):
        assert found == expected


def test_gamma_counts_only_where_nothing_says_more():
    assert int(images.decode(gamma_png(100_000, 128, chunk(b"sRGB", b"\0"))).rgb[0, 0, 0]) == 128


def test_density_and_dates_are_read():
    when = "2024:05:06 07:08:09"
    data = jpeg(exif=exif_block(t36867=when, t36881="+02:00"), dpi=(300, 300))
    metadata = images.decode(data).metadata
    assert metadata.dpi == (300, 300)
    assert dict(metadata.dates) == {0x9003: when, 0x9011: "+02:00"}
    physical = chunk(b"pHYs", struct.pack(">IIB", 11811, 5906, 1))
    assert images.decode(png_with(physical)).metadata.dpi == pytest.approx((300, 150), abs=0.02)
    assert images.decode(png_with()).metadata.dpi is None


def test_an_exif_block_of_a_thousand_large_tags_is_read_at_once():
    entries = b"".join(struct.pack("<HHII", 40000 + tag, 7, 1 << 20, 8) for tag in range(4000))
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", 4000) + entries + bytes(1 << 20)
    picture = images.decode(png_with(chunk(b"eXIf", block)))
    assert picture.rgb.shape == (3, SIDE, SIDE)


@pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
def test_a_result_keeps_density_and_dates_and_nothing_else(format):
    when = "2024:05:06 07:08:09"
    block = Image.Exif()
    block[0x0112], block[0x010F], block[0x0132] = 6, "a maker", when
    block.get_ifd(0x8769)[0x9003] = when
    block.get_ifd(0x8825)[1] = "N"
    picture = images.decode(jpeg(exif=block.tobytes(), dpi=(300, 300)))
    encoded = images.encode(images.shrink(picture, 4), format)
    again = Image.open(BytesIO(encoded))
    density = {0x011A, 0x011B, 0x0128} if format == "webp" else set()  # which has no other place for it
    if format != "webp":
        assert again.info["dpi"] == pytest.approx((300, 300), abs=0.02)
    assert images.decode(encoded).metadata.dpi == pytest.approx((300, 300), abs=0.02)
    exif = again.getexif()
    assert set(exif) - {0x8769} == {0x0132} | density
    assert exif.get_ifd(0x8769) == {0x9003: when} and exif[0x0132] == when
    plain = Image.open(BytesIO(images.encode(images.Picture(picture.rgb), format)))
    assert not plain.getexif() and "dpi" not in plain.info


@pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
def test_a_density_without_dates_is_kept_and_may_differ_across_and_down(format):
    dense = images.Picture(images.decode(jpeg()).rgb, metadata=Metadata(dpi=(300, 150)))
    found = images.decode(images.encode(dense, format)).metadata
    assert found.dpi == pytest.approx(dense.metadata.dpi, abs=0.02) and not found.dates
