import struct
import zlib

import numpy as np
import pytest
import torch
from image_files import (
    HEIGHT,
    WIDTH,
    alpha_photo,
    color_photo,
    deep_grey,
    exif,
    forbid_decoding,
    join_chunks,
    merge,
    palette_image,
    png,
    require_writer,
    save,
    srgb_profile,
)
from PIL import Image

from perceptual.errors import ImageTooLarge, InputError, InvalidImage, UnsupportedFormat
from perceptual.inference import images


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
