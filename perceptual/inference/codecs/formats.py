"""The supported formats, and the detection of a file's format."""

import re
from collections.abc import Callable

from ...errors import InvalidImage, UnsupportedFormat
from . import bmp, gif, heif, jpeg, png, tiff, webp
from .encoded import Encoded

FTYP = rb".{4}ftyp"

# Magic bytes of the supported formats, and their readers.
READERS: dict[str, tuple[bytes, Callable[[bytes | bytearray], Encoded]]] = {
    "JPEG": (rb"\xff\xd8", jpeg.read),
    "PNG": (rb"\x89PNG\r\n\x1a\n", png.read),
    "WEBP": (rb"RIFF.{4}WEBP", webp.read),
    "BMP": (rb"BM", bmp.read),
    "TIFF": (rb"II[*+]\0|MM\0[*+]", tiff.read),
    "GIF": (rb"GIF8[79]a", gif.read),
    "AVIF": (FTYP + rb"(avi[fs]|(mif1|msf1|miaf).{4}(.{4}){0,8}?avi[fs])", heif.read_avif),
    "HEIC": (FTYP + rb"(hei[cfmsx]|hev[cmsx]|mif1|msf1)", heif.read_heic),
}
READABLE = tuple(READERS)

# Magic bytes of formats that are refused; Pillow reads some of them, but clients must not reach its parsers for them.
UNREADABLE = {
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "JPEG 2000": rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ",
    "camera raw": FTYP + rb"crx |IIR[OS]|MMOR|IIU\0|FUJIFILMCCD-RAW|\0MRM|FOVb",
    "DDS": rb"DDS ",
    "EPS": rb"%!PS|\xc5\xd0\xd3\xc6",
    "ICNS": rb"icns",
    "ICO": rb"\0\0\x01\0",
    "OpenEXR": rb"v/1\x01",
    "PCX": rb"\x0a[\0\x02-\x05]\x01[\x01\x02\x04\x08]",
    "PDF": rb"%PDF-",
    "Photoshop": rb"8BPS",
    "PNM": rb"P[1-7]\s",
    "QOI": rb"qoif",
    "SGI": rb"\x01\xda[\0\x01][\x01\x02]",
    "SVG": rb"(\xef\xbb\xbf)?\s*(<\?xml.*|<!.*)?<svg[\s>]",
}


def read(data: bytes | bytearray) -> Encoded:
    """An image that is not decoded yet.

    Raises:
        InvalidImage: Not an image, or a damaged one.
        UnsupportedFormat: An image of another format, or of a flavour that is not supported.
        ImageTooLarge: It has more parts than any picture needs.
    """
    beginning = bytes(data[:1024])
    for pattern, reader in READERS.values():
        if re.match(pattern, beginning, re.DOTALL):
            return reader(data)
    raise unreadable(data)


def unreadable(data: bytes | bytearray) -> InvalidImage | UnsupportedFormat:
    """The error for data of no supported format."""
    readable = f"send {', '.join(READABLE[:-1])} or {READABLE[-1]}"
    if not data:
        return InvalidImage(f"the image is empty; {readable}")
    beginning = bytes(data[:1024])
    for name, pattern in UNREADABLE.items():
        if re.match(pattern, beginning, re.DOTALL):
            return UnsupportedFormat(f"{name} is not supported; {readable}")
    if data.endswith(b"TRUEVISION-XFILE.\0"):  # the one format that is detected by its end
        return UnsupportedFormat(f"TGA is not supported; {readable}")
    return InvalidImage(f"this is not an image; {readable}")
