"""What an archive says of itself; readable without importing torch."""

import json
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError, ServerError

MANIFEST = "MAR-INF/MANIFEST.json"
# What a damaged archive makes zipfile and json raise; RuntimeError where a flipped bit says that it is encrypted.
DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, OSError),
    *(KeyError, TypeError, AttributeError, ValueError),
)
# TorchServe refuses ".." anywhere in a path, and takes a model called "all" for all of them.
VALID_NAME = re.compile(r"(?!all$)[A-Z0-9][A-Z0-9_-]*(\.[A-Z0-9_-]+)*", re.IGNORECASE | re.ASCII)


class Archive(NamedTuple):
    """An archive of a model store: its file's name, and the model and version in its manifest."""

    file: str
    name: str
    version: str


def find_archives(
    model_store: Path, names: Sequence[str] | None, pass_over: Callable[[str], None] | None = None
) -> list[Archive]:
    """The archives of a model store, or those of some file names (without ``.mar``).

    Of several versions of a model the newest goes first, which TorchServe makes the default.

    Args:
        model_store: The folder.
        names: Of files; None for all.
        pass_over: Is told of each that is missing, damaged, or has a name that TorchServe cannot take, which is then
            left out; by default, that is an error.

    Raises:
        ServerError: There is none, one is missing or damaged, or two hold the same version of a model.
        InputError: A name that TorchServe cannot take.
    """
    if names is None:
        names = [file.stem for file in model_store.glob("*.mar")]
        if not names:
            raise ServerError(f"there are no archives in {model_store}; build them with: perceptual package")
    archives = []
    for name in names:
        try:
            archives.append(read_archive(model_store / f"{checked_name(name, 'the name of an archive')}.mar"))
        except (InputError, ServerError) as error:
            if pass_over is None:
                raise
            pass_over(str(error))
    archives.sort(key=lambda each: (each.name, each.version))
    for one, other in pairwise(archives):
        if one[1:] == other[1:]:
            raise ServerError(f"{one.file} and {other.file} both hold {one.name} {one.version}; remove one of them")
    newest_first = sorted(archives, key=lambda each: version_key(each.version), reverse=True)
    return sorted(newest_first, key=lambda each: each.name)


def read_archive(file: Path) -> Archive:
    """An archive's name and version. Raises ServerError if it is missing or damaged."""
    model = read_manifest(file)["model"]
    name, version = (checked_name(str(model[key]), f"{file}: {key}") for key in ("modelName", "modelVersion"))
    return Archive(file.name, name, version)


def version_key(version: str) -> list[tuple[int, str]]:
    """By what versions are ordered: 1.10 comes after 1.9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"[._-]", version)]


def read_manifest(archive: str | Path) -> dict[str, Any]:
    """The manifest of an archive: ``model`` (``modelName``, ``modelVersion``, ``handler``, …), ``description``, ….

    Raises:
        ServerError: The file is missing or not an archive. TorchServe itself would take it for an empty model
            of which every worker dies.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            if damaged := file.testzip():
                raise ServerError(f"{archive} is damaged at {damaged}; build it again")
            manifest = json.loads(file.read(MANIFEST))
            if not {"modelName", "modelVersion", "handler"} <= manifest["model"].keys():
                raise ServerError(f"{archive} is not a model archive: its manifest names no model, version or handler")
            return manifest
    except FileNotFoundError:
        raise ServerError(f"there is no archive {archive}; build it with: perceptual package") from None
    except DAMAGE as error:
        raise ServerError(f"{archive} is not a model archive, or a damaged one: {error}") from error


def checked_name(name: str, what: str) -> str:
    """A name or version that can stand in a file name and a URL. Raises InputError."""
    if not VALID_NAME.fullmatch(name):
        raise InputError(f"{what}; {name!r} cannot be served: letters, digits, '_', '-' and '.' only, and not 'all'")
    return name
