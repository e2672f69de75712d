"""What an archive says of itself; readable without importing torch."""

import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

from .errors import InputError, ServerError

MANIFEST = "MAR-INF/MANIFEST.json"
# TorchServe refuses ".." anywhere in a path, and takes a model called "all" for all of them.
VALID_NAME = re.compile(r"(?!all$)[A-Z0-9][A-Z0-9_-]*(\.[A-Z0-9_-]+)*", re.IGNORECASE | re.ASCII)


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
    except (zipfile.BadZipFile, zlib.error, KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise ServerError(f"{archive} is not a model archive, or a damaged one: {error}") from error


def checked_name(name: str, what: str) -> str:
    """A name or version that can stand in a file name and a URL. Raises InputError."""
    if not VALID_NAME.fullmatch(name):
        raise InputError(f"{what}; {name!r} cannot be served: letters, digits, '_', '-' and '.' only, and not 'all'")
    return name
