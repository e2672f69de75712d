"""Limits on boxes in AVIF and HEIC files (ISO/IEC 14496-12), which can take libraries far longer than the pixels."""

import struct
from collections.abc import Iterator

from ...errors import ImageTooLarge
from .encoded import too_many

MOST_BOXES = 10_000
LARGEST_TABLE = 2**17  # bytes; a photo of 200 megapixels has 768 items, each some 30 bytes in a table
TABLES = (b"iinf", b"iloc", b"ipma", b"iref")  # of items: libraries take time with the square of their number
PARENTS = {
    b"meta": b"",
    b"iprp": b"meta",
    b"ipco": b"iprp",
}  # boxes whose content is read; b"" is the file
VERSIONED = {b"meta": 4}  # bytes of a box before the boxes in it


def check_boxes(name: str, data: bytes | bytearray) -> None:
    """Raises ImageTooLarge for a file of more boxes or items than a picture needs.

    Args:
        name: Of the format.
        data: The file's content.
    """
    for count, (kind, size) in enumerate(boxes(data, 0, len(data))):
        if count == MOST_BOXES:
            raise too_many(name, "boxes", MOST_BOXES)
        if kind in TABLES and size > LARGEST_TABLE:
            raise ImageTooLarge(f"the {name} file has more items than any picture needs; save it anew")


def boxes(data: bytes | bytearray, start: int, end: int, parent: bytes = b"") -> Iterator[tuple[bytes, int]]:
    """Type and size of the boxes in a part of a file, with nested ones, up to the first that is damaged."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1 and start + 16 <= end:
            head, size = 16, struct.unpack_from(">Q", data, start + 8)[0]
        stop = min(start + size, end) if size else end  # size 0: up to the end
        if stop < start + head:
            return
        yield kind, stop - start
        if PARENTS.get(kind) == parent:
            yield from boxes(data, start + head + VERSIONED.get(kind, 0), stop, kind)
        start = stop
