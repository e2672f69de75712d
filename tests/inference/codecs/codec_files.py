"""Makes the files that the tests of this folder decode: whole ones, and their parts by hand."""

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image

SIDE = 8
Y, X = np.mgrid[0:SIDE, 0:SIDE]
COLORS = np.stack([X * 30, Y * 30, np.full_like(X, 90)], axis=-1).astype(np.uint8)  # what every file below shows
GREY = (X * 20 + Y * 10).astype(np.uint8)


def save(image, format, **options):
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def jpeg(**options):
    return save(Image.fromarray(COLORS), "JPEG", quality=100, subsampling=0, **options)


def segment(code, content):
    return bytes([0xFF, code]) + struct.pack(">H", len(content) + 2) + content


def jpeg_with(*segments, app0=True):
    """A JPEG with segments at its beginning, with or without its own first one."""
    data = jpeg()
    end = 4 + struct.unpack_from(">H", data, 4)[0]
    return data[:2] + b"".join(segments) + data[2 if app0 else end :]


def chunk(name, content, checksum=None):
    checksum = zlib.crc32(name + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png_of(width, height, depth, kind, pixels, *chunks):
    """A PNG of rows of bytes, unfiltered."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    rows = zlib.compress(b"".join(b"\0" + row for row in pixels))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def png_with(*chunks):
    return png_of(SIDE, SIDE, 8, 2, [row.tobytes() for row in COLORS], *chunks)


def gif(canvas, frame, data, corner=(0, 0), before=b"", palette=bytes(3) + b"\xff\x80\x20"):
    """A GIF of two colours with one frame of LZW data, sub-blocks and terminator included."""
    screen = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x80, 0, 0) + palette
    return screen + before + b"," + struct.pack("<4HB", *corner, *frame, 0) + b"\x02" + data + b";"


def riff(*chunks):
    body = b"WEBP" + b"".join(
        name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2) for name, content in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp(width, height, bits, compression, pixels, between=b"", size=40, rest=b""):
    """A BMP; between header and pixels stand masks or a palette."""
    start = 14 + size + len(between)
    header = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, len(pixels), 0, 0, 0, 0) + rest
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + between + pixels


def tiff(tags, parts, order="<", others=()):
    """A TIFF of tags (type and values; 2 bytes, 4 or 1) and parts of its pixels, with other directories after it."""
    tags = {273: (4, [0] * len(parts)), 279: (4, [len(part) for part in parts])} | tags
    layout = {1: "B", 3: "H", 4: "I", 2: "B"}

    def directory(tags, place, following):
        values, body = b"", struct.pack(order + "H", len(tags))
        for tag, (kind, numbers) in sorted(tags.items()):
            raw = struct.pack(f"{order}{len(numbers)}{layout[kind]}", *numbers)
            where = raw.ljust(4, b"\0")
            if len(raw) > 4:
                where = struct.pack(order + "I", place + 2 + 12 * len(tags) + 4 + len(values))
                values += raw + bytes(len(raw) % 2)
            body += struct.pack(order + "HHI", tag, kind, len(numbers)) + where
        return body + struct.pack(order + "I", following) + values

    start = 8 + len(directory(tags, 8, 0))
    tags[273] = (4, [start + sum(map(len, parts[:index])) for index in range(len(parts))])
    pixels = b"".join(parts)
    rest, following = b"", start + len(pixels)
    for other in others:
        rest += directory(other, following + len(rest), 0)
    first = directory(tags, 8, following if others else 0)
    return (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8) + first + pixels + rest


def tiff_tags(bits, photometric, samples, **others):
    """The usual tags of a picture of SIDE × SIDE pixels; others as t<number>=(type, values)."""
    usual = {256: SIDE, 257: SIDE, 259: 1, 262: photometric, 277: samples, 278: SIDE}
    tags = {tag: (3, [value]) for tag, value in usual.items()} | {258: (3, [bits] * samples)}
    return tags | {int(name[1:]): value for name, value in others.items()}
