"""Directories of tags, as in TIFF and EXIF (TIFF 6.0, section 2; BigTIFF).

Values are read only on request, up to a maximum number: a directory may claim any number of them.
"""

import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np

Order = Literal["<", ">"]

# By type: NumPy's name, without the byte order. Rationals are pairs.
KINDS = {
    **{1: "u1", 2: "u1", 3: "u2", 4: "u4", 5: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 10: "i4"},
    **{11: "f4", 12: "f8", 13: "u4", 16: "u8", 17: "i8", 18: "u8"},
}
PAIRS = (5, 10)
ORDERS: dict[bytes, Order] = {b"II": "<", b"MM": ">"}
MOST_TAGS = 4096
NOTHING = np.empty(0, np.uint32)


@dataclass(frozen=True)
class Entry:
    """The position of a tag's values."""

    kind: int
    count: int
    place: int


@dataclass(frozen=True)
class Directory:
    """The tags of one directory.

    Attributes:
        data: The file.
        order: ``<`` or ``>``.
        entries: By tag; if a tag occurs twice, the first.
        next: Position of the next directory; 0 if there is none.
    """

    data: bytes | bytearray
    order: Order
    entries: dict[int, Entry]
    next: int

    def values(self, tag: int, most: int = 1) -> np.ndarray:
        """The numbers of a tag, ``most`` of them at most; none if it is missing or lies outside the file.

        Rationals are returned as quotients.
        """
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in KINDS:
            return NOTHING
        dtype, each = np.dtype(self.order + KINDS[entry.kind]), 2 if entry.kind in PAIRS else 1
        count = min(entry.count, most) * each
        if entry.place + count * dtype.itemsize > len(self.data):
            return NOTHING
        values = np.frombuffer(self.data, dtype, count, entry.place)
        return values if each == 1 else values[::2] / np.maximum(values[1::2], 1)

    def number(self, tag: int, default: int) -> int:
        """The first number of a tag as an integer, or the default."""
        values = self.values(tag)
        return int(values[0]) if len(values) and np.isfinite(values[0]) else default

    def numbers(self, tag: int, most: int = 16) -> tuple[int, ...]:
        """The numbers of a tag as integers."""
        return tuple(int(value) for value in self.values(tag, most) if np.isfinite(value))

    def text(self, tag: int, most: int = 200) -> str:
        """An ASCII text; empty if it is missing or of another type."""
        raw = self.values(tag, most).astype(np.uint8).tobytes().split(b"\0")[0]
        return raw.decode() if raw.isascii() else ""


def read_header(data: bytes | bytearray) -> tuple[Order, bool, int] | None:
    """Byte order, whether it is a BigTIFF, and the first directory's position; None if the data is not a TIFF."""
    order = ORDERS.get(bytes(data[:2]))
    if order is None or len(data) < 16:
        return None
    (version,) = struct.unpack_from(f"{order}H", data, 2)
    if version not in (42, 43):
        return None
    (place,) = struct.unpack_from(f"{order}{'Q' if version == 43 else 'I'}", data, 8 if version == 43 else 4)
    return order, version == 43, place


def read_directory(data: bytes | bytearray, place: int, order: Order, big: bool) -> Directory | None:
    """The directory at a position; None if there is none, or if it claims more tags than any file has."""
    head, one = ("Q", "HHQ8s") if big else ("H", "HHI4s")
    entry = struct.Struct(order + one)
    start = place + struct.calcsize(order + head)
    if place < 8 or start > len(data):
        return None
    (count,) = struct.unpack_from(order + head, data, place)
    end = start + count * entry.size
    if count > MOST_TAGS or end > len(data):
        return None
    entries: dict[int, Entry] = {}
    for at in range(start, end, entry.size):
        tag, kind, number, value = entry.unpack_from(data, at)
        size = np.dtype(KINDS.get(kind, "u1")).itemsize * (2 if kind in PAIRS else 1) * number
        inside = at + entry.size - len(value)
        where = inside if size <= len(value) else int.from_bytes(value, "little" if order == "<" else "big")
        entries.setdefault(tag, Entry(kind, number, where))
    width = struct.calcsize(order + ("Q" if big else "I"))
    following = data[end : end + width].ljust(width, b"\0")
    return Directory(data, order, entries, int.from_bytes(following, "little" if order == "<" else "big"))


def write_directory(order: Order, place: int, tags: dict[int, np.ndarray]) -> bytes:
    """A directory of integer tags, followed by their values, for a position in a classic TIFF."""
    kinds = {"u1": 1, "u2": 3, "u4": 4}
    body, values = struct.pack(order + "H", len(tags)), b""
    start = place + 2 + 12 * len(tags) + 4
    for tag, numbers in sorted(tags.items()):
        raw = numbers.astype(numbers.dtype.newbyteorder(order)).tobytes()
        if len(raw) > 4:
            where = struct.pack(order + "I", start + len(values))
            values += raw + bytes(len(raw) % 2)
        else:
            where = raw.ljust(4, b"\0")
        body += struct.pack(order + "HHI", tag, kinds[numbers.dtype.str[1:]], len(numbers)) + where
    return body + bytes(4) + values
