"""JPEG: segments and scans (ITU T.81, annex B), JFIF, Adobe, EXIF and ICC."""

import re
import struct
from io import BytesIO

from PIL import JpegImagePlugin

from ...errors import ImageTooLarge, InvalidImage, UnsupportedFormat
from .colour import Bands
from .encoded import Encoded, load_bands, pillow_errors, too_many
from .metadata import Metadata, checked_dpi, with_exif

MOST_SEGMENTS = 10_000
MOST_SCANS = 500
# A decoder visits all blocks in each scan, even in an empty one; usual progressive files have ten scans.
MOST_SCANNED = 2**31  # pixels, in all scans together

MARKER = re.compile(rb"\xff[^\0\xff]")
AFTER_SCAN = re.compile(rb"\xff[^\0\xd0-\xd7\xff]")
ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length: TEM, RST, SOI
END, SCAN, JFIF, EXIF, ICC, ADOBE = 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE
TABLES = (0xC4, 0xCC, 0xDB, 0xDC, 0xDD)  # DHT, DAC, DQT, DNL, DRI
FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # baseline, extended, progressive; the last two with arithmetic coding
UNREAD_FRAMES = {
    **dict.fromkeys((0xC3, 0xCB), "lossless JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE), "hierarchical JPEG"),
    0xF7: "JPEG-LS",
}


def read(data: bytes | bytearray) -> Encoded:
    """An image, from its segments. Raises InvalidImage, UnsupportedFormat, ImageTooLarge."""
    segments = Segments()
    place = 2
    for _ in range(MOST_SEGMENTS):
        found = (AFTER_SCAN if segments.scans else MARKER).search(data, place)
        place = segments.add(data, found.start()) if found else len(data)
        if place >= len(data):
            break
    else:
        raise too_many("JPEG", "segments", MOST_SEGMENTS)
    with pillow_errors("the JPEG header"):
        image = JpegImagePlugin.JpegImageFile(BytesIO(segments.pixels()), "")

    def load() -> Bands:
        segments.check_work(*image.size)
        return load_bands(image)

    return Encoded(image.size, load, segments.metadata())


class Segments:
    """The parts of a file that are kept: all that determine the pixels, and the first metadata of each kind."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.first: dict[int, bytes] = {}
        self.profile: dict[int, tuple[int, bytes]] = {}
        self.scans = self.frames = 0

    def add(self, data: bytes | bytearray, place: int) -> int:
        """Reads the segment with the marker at a position; returns the position from which to search for the next."""
        code = data[place + 1]
        if code == END:
            self.kept.append(b"\xff\xd9")
            return len(data)
        if code in ALONE:
            return place + 2
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        end = place + 2 + length
        if code == SCAN:
            return self.add_scan(data, place, end)
        content = bytes(data[place + 4 : end])
        if length < 2 or end > len(data):
            self.refuse_unread(code, content)
            return len(data)  # truncated; the decoder raises the error
        if code in FRAMES or code in UNREAD_FRAMES:
            self.add_frame(code, content)
        if code in FRAMES or code in TABLES:
            self.kept.append(bytes(data[place:end]))
        else:
            self.add_metadata(code, content)
        return end

    def add_scan(self, data: bytes | bytearray, place: int, end: int) -> int:
        """Keeps a scan, with its pixel data."""
        self.scans += 1
        if self.scans > MOST_SCANS:
            raise too_many("JPEG", "scans", MOST_SCANS)
        found = AFTER_SCAN.search(data, min(end, len(data)))
        following = found.start() if found else len(data)
        self.kept.append(bytes(data[place:following]))
        return following

    def add_frame(self, code: int, content: bytes) -> None:
        """Keeps the frame header, of which there must be one."""
        self.refuse_unread(code, content)
        self.frames += 1
        if self.frames > 1:
            raise InvalidImage("the JPEG file has two frames; save it anew with an image editor")

    def refuse_unread(self, code: int, content: bytes) -> None:
        """Raises UnsupportedFormat for a frame of a kind that is not supported."""
        name = UNREAD_FRAMES.get(code)
        if code in FRAMES and content and content[0] != 8:
            name = f"JPEG of {content[0]} bits"
        if name:
            raise UnsupportedFormat(f"{name} is not supported; save it as JPEG of 8 bits, or as PNG")

    def add_metadata(self, code: int, content: bytes) -> None:
        """Keeps metadata, if it is complete."""
        if code == ICC and content.startswith(b"ICC_PROFILE\0") and len(content) > 14:
            self.profile.setdefault(content[12], (content[13], content[14:]))
        elif (
            (code == JFIF and content.startswith(b"JFIF\0") and len(content) >= 14)
            or (code == ADOBE and content.startswith(b"Adobe") and len(content) >= 12)
            or (code == EXIF and content.startswith(b"Exif\0\0"))
        ):
            self.first.setdefault(code, content)

    def pixels(self) -> bytes:
        """The file, without metadata except what defines the colour encoding."""
        defining = [
            b"\xff" + bytes([code]) + struct.pack(">H", len(self.first[code]) + 2) + self.first[code]
            for code in (JFIF, ADOBE)
            if code in self.first
        ]
        return b"".join([b"\xff\xd8", *defining, *self.kept])

    def check_work(self, width: int, height: int) -> None:
        """Raises ImageTooLarge if the scans together process more pixels than any picture needs."""
        if self.scans * width * height > MOST_SCANNED:
            raise ImageTooLarge(
                f"the JPEG file has {self.scans} scans of {width}×{height} pixels, more than any picture needs; "
                "save it anew with an image editor"
            )

    def metadata(self) -> Metadata:
        """Metadata of the other segments."""
        parts = [self.profile[number][1] for number in sorted(self.profile)]
        whole = [*self.profile] and sorted(self.profile) == [*range(1, self.profile[min(self.profile)][0] + 1)]
        metadata = Metadata(profile=b"".join(parts) if whole else None, dpi=jfif_dpi(self.first.get(JFIF)))
        return with_exif(metadata, self.first.get(EXIF))


def jfif_dpi(content: bytes | None) -> tuple[float, float] | None:
    """Pixels per inch, from a JFIF segment."""
    if content is None:
        return None
    unit, across, down = struct.unpack_from(">BHH", content, 7)
    factor = {1: 1.0, 2: 2.54}.get(unit)
    return checked_dpi(across * factor, down * factor) if factor else None
