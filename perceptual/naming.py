"""Names and versions of models: which are valid for TorchServe, and which version is newer."""

import os
import re
from typing import NamedTuple

from .errors import InputError

# TorchServe registers no archive with ".." in its name, the front refuses a path with the part "..", and a model called
# "all" stands for all of them.
VALID_NAME = re.compile(r"(?!all$)[A-Z0-9][A-Z0-9_-]*(\.[A-Z0-9_-]+)*", re.IGNORECASE | re.ASCII)
LONGEST = 200  # bytes; the name of a file may have 255, and those of locks and temporary files are longer


class ModelVersion(NamedTuple):
    """A version of a model."""

    name: str
    version: str

    @property
    def path(self) -> str:
        """Its form in a URL: ``name/version``."""
        return f"{self.name}/{self.version}"

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def checked_name(name: str, what: str) -> str:
    """Returns a name or version that is valid in a file name and a URL. Raises InputError for any other."""
    if not VALID_NAME.fullmatch(name):
        raise InputError(f"{what}; {name!r} cannot be served: letters, digits, '_', '-' and '.' only, and not 'all'")
    return checked_length(name, what)


def checked_length(name: str, what: str) -> str:
    """Returns a name that is short enough for that of a file. Raises InputError for a longer one."""
    if len(os.fsencode(name)) > LONGEST:
        raise InputError(f"{what}; {name[:40]!r}… is too long: at most {LONGEST} bytes")
    return name


def version_key(version: str) -> list[tuple[int, str]]:
    """A sort key of versions: 1.10 is newer than 1.9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"[._-]", version)]
