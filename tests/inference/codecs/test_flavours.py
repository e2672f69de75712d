"""Flavours of the formats: read rightly, or refused by their name."""

import struct
import zlib
from io import BytesIO
from itertools import product

import numpy as np
import pytest
from codec_files import COLORS, GREY, SIDE, bmp, chunk, gif, jpeg, png_of, save, tiff, tiff_tags
from PIL import Image, features

from perceptual.errors import InputError, InvalidImage, UnsupportedFormat
from perceptual.inference import images
from perceptual.inference.codecs import deep_tiff, heif

pytestmark = pytest.mark.slow  # reads hundreds of flavours

LONG = 4


def as_array(tensor):
    return tensor.permute(1, 2, 0).numpy()


# ---- Camera raw


def raw(order="<", preview=None, version=True, photometric=32803):
    """A raw file: a preview in colours, and the sensor's pixels in the directory after it."""
    tags = tiff_tags(8, 2, 3, t254=(LONG, [1])) | ({50706: (1, [1, 4, 0, 0])} if version else {})
    sensor = {256: (3, [640]), 257: (3, [480]), 258: (3, [16]), 259: (3, [1]), 262: (3, [photometric])}
    return tiff(tags, [COLORS.tobytes()], order, others=[sensor])


def with_directory_inside(order, preview, sensor):
    """A TIFF of a preview's tags, and inside its directory one of the sensor's pixels, as most cameras write it."""
    inside = tiff(sensor, [], order)[8:]
    place = len(tiff(preview | {330: (LONG, [0])}, [COLORS.tobytes()], order))
    return tiff(preview | {330: (LONG, [place])}, [COLORS.tobytes()], order) + inside


def nikon():
    """NEF: a thumbnail without compression; the pixels in Nikon's own."""
    sensor = {256: (3, [6016]), 257: (3, [4016]), 258: (3, [14]), 259: (3, [34713]), 262: (3, [32803])}
    return with_directory_inside(">", tiff_tags(8, 2, 3, t254=(LONG, [1])), sensor)


def sony():
    """ARW: a preview in JPEG, without strips; the pixels in Sony's own compression."""
    preview = {254: (LONG, [1]), 259: (3, [6]), 513: (LONG, [300]), 514: (LONG, [200])}
    sensor = {256: (3, [6048]), 257: (3, [4024]), 258: (3, [14]), 259: (3, [32767]), 262: (3, [32803])}
    return with_directory_inside("<", preview, sensor)


def canon():
    """CR2: a mark after the header; a preview in JPEG; the pixels in lossless JPEG, which no tag says."""
    preview = {256: (3, [5616]), 257: (3, [3744]), 258: (3, [8] * 3), 259: (3, [6])}
    sensor = {259: (3, [6]), 50648: (LONG, [600]), 50656: (LONG, [1]), 50752: (3, [1, 1728, 1904])}
    return b"II*\0\x10\0\0\0CR\2\0" + bytes(4) + tiff(preview, [jpeg()], others=[sensor])[8:]


@pytest.mark.parametrize(
    "data",
    [
        nikon(),
        sony(),
        canon(),
        raw(),
        raw(">", version=False),
        raw(version=False, photometric=34892),
        b"IIRO\x08\0\0\0" + bytes(100),
        b"IIU\0\x18\0\0\0" + bytes(100),
        b"FUJIFILMCCD-RAW 0201" + bytes(100),
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    ],
)
def test_camera_raw_is_refused_by_its_name(data):
    with pytest.raises(UnsupportedFormat, match="^camera raw"):
        images.decode(data)


def test_the_preview_of_another_picture_is_not_taken_for_it():
    with pytest.raises(UnsupportedFormat, match="a preview of another"):
        images.decode(raw(version=False, photometric=2))


def test_directories_that_go_round_in_a_circle_end():
    data = tiff(tiff_tags(8, 2, 3), [COLORS.tobytes()])
    count = struct.unpack_from("<H", data, 8)[0]
    place = 10 + 12 * count
    circle = data[:place] + struct.pack("<I", 8) + data[place + 4 :]
    np.testing.assert_array_equal(as_array(images.decode(circle).rgb), COLORS)


# ---- PNG


def test_a_transparent_colour_of_16_bits_is_compared_in_all_of_them():
    pixels = struct.pack(">9H", 1000, 2000, 3000, 1001, 2000, 3000, 1000, 2000, 3001)
    data = png_of(3, 1, 16, 2, [pixels], chunk(b"tRNS", struct.pack(">3H", 1000, 2000, 3000)))
    picture = images.decode(data)
    assert picture.alpha.tolist() == [[[0, 255, 255]]]
    assert as_array(picture.rgb)[0].tolist() == [[3, 7, 11]] * 3


# ---- GIF


def test_outside_the_first_frame_a_gif_is_transparent():
    # The codes: clear, the pixels 0 1 1 0, end; of 3 bits, and of 4 as soon as the table has 8 entries.
    bits, place = 0, 0
    for code, width in ((4, 3), (0, 3), (1, 3), (1, 3), (0, 4), (5, 4)):
        bits |= code << place
        place += width
    picture = images.decode(gif((5, 4), (2, 2), b"\3" + bits.to_bytes(3, "little") + b"\0", corner=(2, 1)))
    alpha = np.zeros((4, 5), np.uint8)
    alpha[1:3, 2:4] = 255
    np.testing.assert_array_equal(as_array(picture.alpha)[..., 0], alpha)
    assert as_array(picture.rgb)[1:3, 2:4].tolist() == [[[0, 0, 0], [255, 128, 32]], [[255, 128, 32], [0, 0, 0]]]


# ---- BMP


@pytest.mark.parametrize(
    "masks", [(0xFF00, 0xFF0000, 0xFF000000), (0xFF, 0xFF00, 0xFF0000), (0x3FF << 20, 0x3FF << 10, 0x3FF)]
)
def test_a_bmp_of_any_masks(masks):
    shifts = [(mask & -mask).bit_length() - 1 for mask in masks]
    values = COLORS.astype(np.uint32) * (4 if masks[2] == 0x3FF else 1)
    pixels = sum(values[..., band] << shift for band, shift in enumerate(shifts)).astype("<u4")[::-1].tobytes()
    found = as_array(images.decode(bmp(SIDE, SIDE, 32, 3, pixels, struct.pack("<3I", *masks))).rgb)
    assert np.abs(found.astype(int) - COLORS).max() <= (1 if masks[2] == 0x3FF else 0)


def test_a_bmp_s_alpha_of_one_bit():
    masks = struct.pack("<4I", 0x7C00, 0x03E0, 0x001F, 0x8000)
    pixels = struct.pack("<2H", 0x8000 | 31 << 10, 31)
    picture = images.decode(bmp(2, -1, 16, 3, pixels, rest=masks + bytes(52), size=108))
    assert as_array(picture.rgb).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    assert picture.alpha.tolist() == [[[255, 0]]]


def test_a_bmp_of_masks_that_is_cut_short_is_refused():
    with pytest.raises(InvalidImage, match="BMP file is truncated"):
        images.decode(bmp(SIDE, SIDE, 32, 3, bytes(100), struct.pack("<3I", 255, 255 << 8, 255 << 16)))


# ---- JPEG


def with_frame(code, precision=8):
    data = bytearray(jpeg())
    place = data.index(b"\xff\xc0")
    data[place + 1], data[place + 4] = code, precision
    return data


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (with_frame(0xC3), "lossless JPEG"),
        (with_frame(0xF7), "JPEG-LS"),
        (with_frame(0xC5), "hierarchical JPEG"),
        (with_frame(0xC1, 12), "JPEG of 12 bits"),
        (with_frame(0xC3, 16), "JPEG of 16 bits|lossless JPEG"),
    ],
)
def test_a_jpeg_that_is_not_read_is_named(data, name):
    with pytest.raises(UnsupportedFormat, match=f"^({name}) is not supported"):
        images.decode(data)


# ---- AVIF and HEIC


@pytest.mark.parametrize("format", ["AVIF", "HEIF"])
def test_what_phones_send(format):
    if format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    big = Image.fromarray(COLORS).resize((64, 48), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif.tobytes(), "quality": 100}
    picture = images.decode(save(big, format, **options))
    upright = np.asarray(big.transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(as_array(picture.rgb) - upright).max() <= 8
    alpha = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1)))
    big.putalpha(alpha)
    found = images.decode(save(big, format, quality=100)).alpha[0].numpy()
    assert np.abs(found.astype(int) - np.asarray(alpha)).max() <= 8


@pytest.mark.parametrize("format", ["AVIF", "HEIF"])
def test_a_phone_s_picture_cut_short_is_refused(format):
    if format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    data = save(Image.fromarray(COLORS).resize((64, 48)), format)
    with pytest.raises(InvalidImage, match="truncated or damaged"):
        images.decode(data[: len(data) * 2 // 3])


@pytest.mark.parametrize(("brand", "package"), [(b"avif", "pillow>=11.3"), (b"heic", "pillow-heif")])
def test_where_nothing_reads_them_the_error_says_what_to_install(brand, package, monkeypatch):
    monkeypatch.setattr(heif, "find_spec", lambda name: None)
    monkeypatch.setattr(heif.features, "check", lambda name: False)
    with pytest.raises(UnsupportedFormat, match=f"pip install '?{package}"):
        images.decode(b"\0\0\0\x1cftyp" + brand + b"\0\0\0\0mif1" + brand + b"miaf")


# ---- TIFF, flavour by flavour


def samples_of(photometric, bits, kind):
    """Right samples, H×W×N, of the known picture, and the picture that they are."""
    color = COLORS if photometric in (2, 5) else GREY[..., None]
    stored = 255 - color if photometric in (0, 5) else color
    if photometric == 5:
        stored = np.dstack([stored, np.zeros_like(GREY)])
    white = {"u": 2.0**bits - 1, "i": 2.0 ** (bits - 1) - 1, "f": 1.0}[kind]
    values = stored / 255 * white
    if kind != "f":  # and not the same from behind: bytes in the wrong order must show
        values = (values + (white / 255 / 4 if bits > 8 else 0)).clip(0, white).round()
    if bits < 8:
        color = (values if photometric else white - values) * (255 / white)
    return values, np.broadcast_to(color, (*GREY.shape, 3))


def packed(values, bits):
    """Unsigned samples of 1, 2 or 4 bits, each row beginning with a byte."""
    digits = (values.reshape(len(values), -1).astype(np.uint8)[..., None] >> np.arange(bits)[::-1]) & 1
    return [np.packbits(row.reshape(-1)).tobytes() for row in digits]


def compressed(rows, compression):
    data = b"".join(rows)
    if compression == 8:
        return zlib.compress(data)
    if compression == 32773:
        parts = [data[place : place + 128] for place in range(0, len(data), 128)]
        return b"".join(struct.pack("b", len(part) - 1) + part for part in parts)
    return data


def differences(values, predictor):
    """Rows as predictor 2 stores them."""
    if predictor != 2:
        return values
    before = np.zeros_like(values)
    before[:, 1:] = values[:, :-1]
    return (values - before).astype(values.dtype)  # NumPy's differences are in the machine's order


KINDS = [(1, "u"), (2, "u"), (4, "u"), (8, "u"), (8, "i"), (16, "u"), (16, "i"), (32, "u"), (32, "i")]
KINDS += [(16, "f"), (32, "f"), (64, "f")]


def flavours(photometric, bits, kind):
    """What is written: planar configuration, predictor, compression, extra sample, byte order."""
    for planar, predictor, compression, extra, order in product((1, 2), (1, 2), (1, 8, 32773), (None, 0, 1, 2), "<>"):
        usual = bits >= 8 or (extra is None and planar == 1)
        if usual and (predictor == 1 or (compression == 8 and kind != "f" and bits >= 8)):
            yield planar, predictor, compression, extra, order


def write(values, photometric, bits, kind, planar, predictor, compression, extra, order):
    samples = values.shape[-1]
    planes = np.moveaxis(values, -1, 0)[..., None] if planar == 2 else [values]
    if bits < 8:
        rows = [packed(plane, bits) for plane in planes]
    else:
        dtype = np.dtype(f"{order}{kind}{bits // 8}")
        rows = [[row.tobytes() for row in differences(plane.astype(dtype), predictor)] for plane in planes]
    others = {"t284": (3, [planar]), "t317": (3, [predictor]), "t339": (3, [{"u": 1, "i": 2, "f": 3}[kind]] * samples)}
    tags = tiff_tags(bits, photometric, samples, t259=(3, [compression]), **others)
    tags |= {338: (3, [extra])} if extra is not None else {}
    return tiff(tags, [compressed(plane, compression) for plane in rows], order)


@pytest.mark.parametrize("photometric", [0, 1, 2, 5])
@pytest.mark.parametrize(("bits", "kind"), KINDS)
def test_every_flavour_of_tiff_is_read_rightly(photometric, bits, kind):
    if bits < 8 and photometric in (2, 5):
        pytest.skip("nobody writes them")
    color, expected = samples_of(photometric, bits, kind)
    opaque = np.full(GREY.shape, {"u": 2.0**bits - 1, "i": 2.0 ** (bits - 1) - 1, "f": 1.0}[kind])
    wrong = []
    for flavour in flavours(photometric, bits, kind):
        values = color if flavour[3] is None else np.dstack([color, opaque])
        try:
            picture = images.decode(write(values, photometric, bits, kind, *flavour))
        except InputError as error:
            wrong.append((flavour, str(error)))
            continue
        difference = np.abs(as_array(picture.rgb).astype(int) - expected).max()
        shown = picture.alpha is None if flavour[3] in (None, 0) else bool((picture.alpha == 255).all())
        if difference > 1 or not shown:
            wrong.append((flavour, difference, shown))
    assert wrong == []


@pytest.mark.parametrize("package", ["tifffile", "imagecodecs"])
def test_without_tifffile_a_flavour_is_refused_by_its_name(package, monkeypatch):
    monkeypatch.setattr(deep_tiff, "find_spec", lambda name: None if name == package else name)
    color, _ = samples_of(2, 32, "f")
    data = write(color, 2, 32, "f", 1, 1, 32773 if package == "imagecodecs" else 1, None, "<")
    with pytest.raises(
        UnsupportedFormat, match=r"^TIFF with 32-bit floating-point RGB, compression \w+ is not supported here"
    ):
        images.decode(data)


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ({262: (3, [6]), 530: (3, [2, 2])}, "8-bit unsigned YCbCr, compression none"),
        ({262: (3, [8]), 258: (3, [16] * 3)}, "16-bit unsigned CIE Lab, compression none"),
        ({259: (3, [34676])}, "8-bit unsigned RGB, compression SGI Log"),
        ({258: (3, [24] * 3)}, "24-bit unsigned RGB, compression none"),
        ({258: (3, [8, 8, 16])}, "8/16-bit unsigned RGB, compression none"),
        ({258: (3, [64] * 3), 339: (3, [6] * 3)}, "64-bit complex RGB, compression none"),
    ],
)
def test_a_flavour_that_nothing_reads_is_refused_by_its_name(tags, name):
    with pytest.raises(UnsupportedFormat, match=f"^TIFF with {name} is not supported; save it"):
        images.decode(tiff(tiff_tags(8, 2, 3) | tags, [bytes(4000)]))


@pytest.mark.parametrize("compression", [1, 8])
def test_deep_pixels_cut_short_are_refused(compression):
    color, _ = samples_of(2, 32, "f")
    data = write(color, 2, 32, "f", 1, 1, compression, None, "<")
    with pytest.raises(InvalidImage, match="truncated or damaged"):
        images.decode(data[: len(data) - 40])
    if compression == 8:
        short = tiff(tiff_tags(32, 2, 3, t259=(3, [8]), t339=(3, [3] * 3)), [zlib.compress(bytes(100))])
        with pytest.raises(InvalidImage, match="truncated or damaged"):
            images.decode(short)


@pytest.mark.parametrize("compression", ["lzw", "lzma", "zstd", "webp", "jpeg2000", "jpegxl", "lerc", "jpeg"])
def test_other_ways_of_compression(compression):
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    file = BytesIO()
    wide = np.asarray(Image.fromarray(COLORS).resize((64, 64), Image.Resampling.BICUBIC))
    options = {"compressionargs": {"lossless": True}} if compression == "webp" else {}
    tifffile.imwrite(file, wide, photometric="rgb", compression=compression, **options)
    picture = images.decode(file.getvalue())
    assert np.abs(as_array(picture.rgb).astype(int) - wide).max() <= (30 if compression == "jpeg" else 2)
