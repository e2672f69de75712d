"""Reads the manifests of archives, without importing torch."""

import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import ArchiveError, InputError
from ..naming import ModelVersion, checked_name, version_key

MANIFEST = "MAR-INF/MANIFEST.json"
# Errors of zipfile and json for a damaged archive; RuntimeError if a flipped bit marks it as encrypted.
DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, OSError),
    *(KeyError, TypeError, AttributeError, ValueError),
)
DIGEST = "inputsDigest"  # our keys in the manifest; TorchServe ignores unknown keys
FOLLOWS = "follows"  # the version to which a learned style was added
COLLECTION = "collection"  # the handler of archives with several networks


@dataclass(frozen=True)
class Archive:
    """An archive, as its manifest describes it.

    Attributes:
        path: The file.
        name: Name of the model.
        version: Version of the model.
        handler: The handler's module, without ``.py``.
        description: One sentence.
        digest: SHA-256 of everything it was built from; empty if this package did not build it.
        follows: The version to which a learned style was added; empty if it was not built for that.
    """

    path: Path
    name: str
    version: str
    handler: str = ""
    description: str = ""
    digest: str = ""
    follows: str = ""

    @property
    def file(self) -> str:
        """The name of the file."""
        return self.path.name

    @property
    def model(self) -> ModelVersion:
        """Name and version of the model."""
        return ModelVersion(self.name, self.version)

    @property
    def is_ours(self) -> bool:
        """Whether this package built it."""
        return bool(self.digest)

    @property
    def is_collection(self) -> bool:
        """Whether it holds several networks, so that requests must name one."""
        return self.is_ours and self.handler == COLLECTION


def find_archives(
    model_store: Path, names: Sequence[str] | None, on_skip: Callable[[str], None] | None = None
) -> list[Archive]:
    """The archives of a model store.

    Of several versions of a model the newest comes first, as TorchServe makes the first its default.

    Args:
        model_store: The folder.
        names: File names without ``.mar``; None for all files.
        on_skip: Called with a message about each archive that is missing, damaged, or has a name that is not valid
            for TorchServe; that archive is left out. By default, it is an error.

    Raises:
        ArchiveError: There is no archive, one is missing or damaged, or two hold the same version of a model.
        InputError: A name is not valid for TorchServe.
    """
    if names is None:
        names = [file.stem for file in model_store.glob("*.mar")]
        if not names:
            raise ArchiveError(f"there are no archives in {model_store}; build them with: perceptual package")
    archives = []
    for name in dict.fromkeys(names):
        try:
            archives.append(read_archive(model_store / f"{checked_name(name, 'the name of an archive')}.mar"))
        except (InputError, ArchiveError) as error:
            if on_skip is None:
                raise
            on_skip(str(error))
    archives.sort(key=lambda each: (each.name, each.version))
    for one, other in pairwise(archives):
        if one.model == other.model:
            raise ArchiveError(f"{one.file} and {other.file} both have {one.model}; remove one of them")
    newest_first = sorted(archives, key=lambda each: version_key(each.version), reverse=True)
    return sorted(newest_first, key=lambda each: each.name)


def readable_archives(model_store: Path) -> list[Archive]:
    """The archives of a model store but those that are damaged or have an invalid name, by file name."""
    found = []
    for file in sorted(model_store.glob("*.mar")):
        with suppress(ArchiveError, InputError):
            found.append(read_archive(file))
    return found


def newest_versions(archives: Iterable[Archive]) -> dict[str, Archive]:
    """The archive with the newest version of each model, by the model's name."""
    return {each.name: each for each in sorted(archives, key=lambda each: version_key(each.version))}


def read_archive(file: str | Path) -> Archive:
    """Reads an archive's manifest.

    Raises:
        ArchiveError: It is missing or damaged.
        InputError: Its name or version is not valid for TorchServe.
    """
    manifest = read_manifest(file)
    model = manifest["model"]
    name, version = (checked_name(str(model[key]), f"{file}: {key}") for key in ("modelName", "modelVersion"))
    return Archive(
        path=Path(file),
        name=name,
        version=version,
        handler=Path(str(model["handler"])).stem,
        description=str(manifest.get("description", "")),
        digest=str(manifest.get(DIGEST, "")),
        follows=str(manifest.get(FOLLOWS, "")),
    )


def files_of_networks(archive: zipfile.ZipFile) -> list[str]:
    """The names of the weights files that requests choose from, in order; the one for large photos is in a folder."""
    return sorted(name for name in archive.namelist() if name.endswith(".safetensors") and "/" not in name)


def read_manifest(archive: str | Path) -> dict[str, Any]:
    """The manifest of an archive: ``model`` (``modelName``, ``modelVersion``, ``handler``, …), ``description``, ….

    Raises:
        ArchiveError: The file is missing or not an archive. TorchServe itself would register an empty model, whose
            workers all die.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            if damaged := file.testzip():
                raise ArchiveError(f"{archive} is damaged at {damaged}; build it again")
            manifest: dict[str, Any] = json.loads(file.read(MANIFEST))
            if not {"modelName", "modelVersion", "handler"} <= manifest["model"].keys():
                raise ArchiveError(f"{archive} is not a model archive: its manifest names no model, version or handler")
            return manifest
    except FileNotFoundError:
        raise ArchiveError(f"there is no archive {archive}; build it with: perceptual package") from None
    except DAMAGE as error:
        raise ArchiveError(f"{archive} is not a model archive, or is damaged: {error}") from error
