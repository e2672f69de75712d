"""Work and memory follow from a picture's pixels and a file's bytes, whatever the file claims.

For each container, the parts that may be repeated are repeated without need, to a third of a server's limit or so.
"""

import resource
import struct
import time
import zlib

import numpy as np
import pytest
from codec_files import SIDE, bmp, chunk, gif, jpeg, jpeg_with, png_of, png_with, riff, save, segment, tiff, tiff_tags
from PIL import Image

from perceptual.errors import InputError
from perceptual.inference import images

pytestmark = pytest.mark.slow  # decodes what takes long

MB = 1 << 20
EMPTY_BLOCK = b"\0\0\0\xff\xff"  # of deflate
SECONDS = 6.0  # of CPU; on a quiet machine, the worst takes three


def scans(side, count):
    """A progressive JPEG whose first scan is repeated without its pixels."""
    data = save(Image.new("RGB", (side, side)), "JPEG", progressive=True)
    place = data.index(b"\xff\xda")
    head = data[place : place + 2 + struct.unpack_from(">H", data, place + 2)[0]]
    return data[:place] + (head + b"\0") * count + b"\xff\xd9"


def strips(count, size, width=16, height=16, compression=1, content=bytes(64)):
    """A TIFF whose strips of one row are all the same bytes."""
    values = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 277: 1, 278: 1}
    place = 8 + 2 + 12 * (len(values) + 2) + 4
    start = place + 8 * count
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items()]
    entries += [struct.pack("<HHII", 273, 4, count, place), struct.pack("<HHII", 279, 4, count, place + 4 * count)]
    directory = struct.pack("<H", len(entries)) + b"".join(sorted(entries, key=lambda entry: entry[1::-1])) + bytes(4)
    arrays = np.full(count, start, "<u4").tobytes() + np.full(count, size, "<u4").tobytes()
    return b"II*\0\x08\0\0\0" + directory + arrays + content


def empty_deflate(mebibytes):
    return b"\x78\x01" + EMPTY_BLOCK * (mebibytes * MB // 5)


def tall_tiles():
    """A TIFF of one-pixel tiles."""
    tags = tiff_tags(8, 1, 1, t256=(4, [8192]), t257=(4, [8192]), t322=(3, [1]), t323=(3, [1]), t324=(4, [8] * 9))
    return tiff({tag: value for tag, value in tags.items() if tag not in (273, 278, 279)}, [bytes(9)])


def box(kind, content):
    return struct.pack(">I4s", 8 + len(content), kind) + content


def avif_of_items(count):
    """An AVIF with so many items more than it needs."""
    data = bytearray(save(Image.new("RGB", (64, 64)), "AVIF"))
    table = data.index(b"iinf")
    item = struct.unpack_from(">I", data, table + 10)[0]
    described = bytes(data[table + 10 : table + 10 + item])
    more = b"".join(described[:12] + struct.pack(">H", 100 + i) + described[14:] for i in range(count))
    for name in (b"meta", b"iinf"):
        place = data.index(name) - 4
        struct.pack_into(">I", data, place, struct.unpack_from(">I", data, place)[0] + len(more))
    struct.pack_into(">H", data, table + 8, 1 + count)
    pixels = data.index(b"mdat") + 4
    offset = data.index(struct.pack(">I", pixels), data.index(b"iloc"))
    struct.pack_into(">I", data, offset, pixels + len(more))
    return bytes(data[: table + 10 + item]) + more + bytes(data[table + 10 + item :])


WHOLE = {
    "avif: 60,000 items": lambda: avif_of_items(60_000),
    "avif: 4 million boxes": lambda: save(Image.new("RGB", (64, 64)), "AVIF") + box(b"free", b"") * 4_000_000,
    "heic: 4 million boxes": lambda: box(b"ftyp", b"heic\0\0\0\0mif1") + box(b"free", b"") * 4_000_000,
    "jpeg: 420,000 scans": lambda: scans(2048, 420_000),
    "jpeg: 1,000 scans of 8192²": lambda: scans(8192, 1000),
    "jpeg: 499 scans of 8192²": lambda: scans(8192, 499),
    "jpeg: 499 scans of 2048²": lambda: scans(2048, 499),
    "jpeg: 2 million comments": lambda: jpeg_with(segment(0xFE, b"x") * 2_000_000),
    "jpeg: 1 million Exif": lambda: jpeg_with(segment(0xE1, b"Exif\0\0x") * 1_000_000),
    "jpeg: 1,900 Exif of 65 KB": lambda: jpeg_with(segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 1900),
    "jpeg: stuffed bytes": lambda: jpeg()[:-2] + b"\xff\0" * (20 * MB) + b"\xff\xd9",
    "jpeg: restarts": lambda: jpeg()[:-2] + b"\xff\xd0" * (20 * MB) + b"\xff\xd9",
    "jpeg: fill bytes": lambda: jpeg()[:2] + b"\xff" * (40 * MB) + jpeg()[2:],
    "jpeg: stray bytes": lambda: jpeg()[:2] + bytes(40 * MB) + jpeg()[2:],
    "png: 2 million private chunks": lambda: png_with(chunk(b"prVt", b"") * 2_000_000),
    "png: 2 million IDAT": lambda: png_with(chunk(b"IDAT", b"") * 2_000_000),
    "png: 1 million tRNS": lambda: png_with(chunk(b"tRNS", bytes(6)) * 1_000_000),
    "png: empty blocks": lambda: png_with(chunk(b"IDAT", empty_deflate(40))),
    "png: 8192² of a hundred bytes": lambda: png_of(8192, 8192, 8, 6, [bytes(100)]),
    "gif: 20 million comments": lambda: gif((8, 8), (8, 8), b"\0", before=b"!\xfe\x01x\0" * (20 * MB)),
    "gif: one long comment": lambda: gif((8, 8), (8, 8), b"\0", before=b"!\xfe" + b"\1x" * (20 * MB) + b"\0"),
    "gif: 20 million blocks": lambda: gif((8, 8), (8, 8), b"\1\4" * (20 * MB) + b"\0"),
    "gif: clear codes": lambda: gif((4096, 4096), (4096, 4096), (b"\xff" + b"\x24\x49\x92" * 85) * 160_000 + b"\0"),
    "gif: 8192² of 61 bytes": lambda: gif((8192, 8192), (8192, 8192), b"\2\x4c\1\0"),
    "webp: 2 million chunks": lambda: riff(*[(b"prVt", b"")] * 2_000_000),
    "webp: 1 million frames": lambda: riff((b"VP8X", bytes(10)), *[(b"ANMF", bytes(16))] * 1_000_000),
    "bmp: 40 MB of runs": lambda: bmp(8000, 8000, 8, 1, b"\1\5" * (5 * MB), bytes(1024)),
    "bmp: 2 MB of runs": lambda: bmp(8000, 8000, 8, 1, b"\1\5" * (MB - 1000), bytes(1024)),
    "bmp: 2 MB of escapes": lambda: bmp(8000, 8000, 8, 1, b"\0\2\1\0" * (MB // 2 - 1000), bytes(1024)),
    "tiff: 14 million strips": lambda: strips(14_000_000, 16),
    "tiff: 65,535 strips": lambda: strips(65_535, 1000, 1000, 65_535, content=bytes(1000)),
    "tiff: strips of the same 40 MB": lambda: strips(8192, 40 * MB, 8192, 8192, 8, empty_deflate(40)),
    "tiff: a strip of empty blocks": lambda: strips(1, 40 * MB, 64, 1, 8, empty_deflate(40)),
    "tiff: 67 million tiles": tall_tiles,
    "tiff: a palette of 4 GB": lambda: tiff(tiff_tags(8, 3, 1, t320=(3, [0] * 768)), [bytes(SIDE * SIDE)]).replace(
        struct.pack("<HHI", 320, 3, 768), struct.pack("<HHI", 320, 3, 2**31)
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", WHOLE)
def test_a_hostile_file_costs_no_more_than_a_few_seconds(name):
    data = WHOLE[name]()
    assert len(data) < 128 * MB
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        images.decode(data)
    except InputError as error:
        assert error.status in (400, 413)
    assert time.process_time() - began < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # 1 GiB


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("avif: 60,000 items", 413, "more items than any picture needs"),
        ("avif: 4 million boxes", 413, "more than 10,000 boxes"),
        ("jpeg: 420,000 scans", 413, "more than 500 scans"),
        ("jpeg: 499 scans of 8192²", 413, "499 scans of 8192×8192 pixels, more than any picture needs"),
        ("jpeg: 1 million Exif", 413, "more than 10,000 segments"),
        ("png: 2 million IDAT", 413, "more than 100,000 chunks"),
        ("gif: 8192² of 61 bytes", 400, "truncated or damaged"),
        ("tiff: strips of the same 40 MB", 400, "more bytes than file and pixels"),
    ],
)
def test_what_a_hostile_file_is_told(name, status, message):
    with pytest.raises(InputError, match=message) as failure:
        images.decode(WHOLE[name]())
    assert failure.value.status == status


@pytest.mark.parametrize("name", ["tiff: 14 million strips", "jpeg: 1,900 Exif of 65 KB"])
def test_what_a_picture_does_not_need_is_dropped(name):
    assert images.decode(WHOLE[name]()).rgb.shape[0] == 3


def test_an_avif_of_many_items_is_read():
    assert images.decode(avif_of_items(1000)).rgb.shape == (3, 64, 64)


def test_a_usual_picture_in_many_parts_is_read():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = png_of(64, 64, 8, 2, [row.tobytes() for row in pixels])
    place = whole.index(b"IDAT") - 4
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    parts = b"".join(chunk(b"IDAT", rows[i : i + 1]) for i in range(len(rows)))
    picture = images.decode(whole[:place] + parts + chunk(b"IEND", b""))
    np.testing.assert_array_equal(picture.rgb.permute(1, 2, 0).numpy(), pixels)
