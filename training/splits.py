"""The split of the photos into training, validation and test sets."""

import hashlib
import os

SPLITS = {  # percent of the files
    "train": range(0, 80),
    "validation": range(80, 90),
    "test": range(90, 100),
    "all": range(0, 100),
}


def percentile(name: str) -> int:
    """A number from 0 to 99 that depends on nothing but the file's name."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") % 100
