"""Metadata of a picture: colour space, orientation, density, dates."""

import re
from dataclasses import dataclass, replace

from .directory import Directory, read_directory, read_header

ORIENTATION, DATE, EXIF = 0x0112, 0x0132, 0x8769
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
# Tags of the EXIF directory: when the picture was taken and when it was digitized, each with its offset from UTC.
EXIF_DATES = (0x9003, 0x9004, 0x9010, 0x9011, 0x9012, 0x9290, 0x9291, 0x9292)
PER_INCH = {2: 1.0, 3: 2.54}


@dataclass(frozen=True)
class Metadata:
    """The metadata that is read from a file.

    Attributes:
        profile: ICC profile of the colours.
        gamma: Exponent from light to values, if there is no profile.
        orientation: 1 to 8, as EXIF counts.
        dpi: Pixels per inch, across and down.
        dates: Dates by EXIF tag, in EXIF's format.
    """

    profile: bytes | None = None
    gamma: float | None = None
    orientation: int = 1
    dpi: tuple[float, float] | None = None
    dates: tuple[tuple[int, str], ...] = ()


def with_exif(metadata: Metadata, block: bytes | None) -> Metadata:
    """Metadata with that of an EXIF block added; unchanged if the block is damaged."""
    block = (block or b"").removeprefix(b"Exif\0\0")
    header = read_header(block)
    directory = header and read_directory(block, header[2], header[0], header[1])
    return with_directory(metadata, directory) if directory else metadata


def with_directory(metadata: Metadata, directory: Directory, big: bool = False) -> Metadata:
    """Metadata with that of the first directory of an EXIF block or a TIFF added."""
    inner = read_directory(directory.data, directory.number(EXIF, 0), directory.order, big)
    dates = {DATE: directory.text(DATE)} | {tag: inner.text(tag) for tag in EXIF_DATES if inner}
    return replace(
        metadata,
        orientation=directory.number(ORIENTATION, 1),
        dpi=metadata.dpi or density(directory),
        dates=tuple((tag, text) for tag, text in dates.items() if re.fullmatch(r"[\d :+.-]{1,40}", text)),
    )


def density(directory: Directory) -> tuple[float, float] | None:
    """Pixels per inch, if a directory has them."""
    across, down = directory.values(X_RESOLUTION), directory.values(Y_RESOLUTION)
    unit = PER_INCH.get(directory.number(RESOLUTION_UNIT, 2))
    return checked_dpi(float(across[0]) * unit, float(down[0]) * unit) if unit and len(across) and len(down) else None


def checked_dpi(across: float, down: float) -> tuple[float, float] | None:
    """Pixels per inch, if they are plausible."""
    return (round(across, 2), round(down, 2)) if 1 < across < 65535 and 1 < down < 65535 else None
