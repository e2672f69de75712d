"""Finds weight files, and reads their metadata, without importing torch.

Weight files are safetensors, whose metadata has four strings: ``format`` (this layout's name), ``task`` (one of
:data:`TASKS`), ``config`` (the network's constructor arguments as JSON) and ``provenance`` (JSON: recipe, iterations,
versions, licence, …). A learned style (:mod:`.styles`) is a task of its own; its ``config``
has the digest of its trunk.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import WeightsError, did_you_mean, in_one_line

FORMAT = "torchserve-perceptual/1"
LEARNED = "learned-style"
TASKS = ("style", "super-resolution", LEARNED)
FACTS = ("name", "title", "artist", "year", "licence")  # of a style
OWN = Path("networks")  # the folder of the user's networks, to which trainings write
UPSCALER = "super_resolution_x4"  # enlarges large photos, which are stylized at a smaller size
LARGE_FACTOR = 4  # by which it enlarges them
LARGE = "large"  # the folder in an archive that has this network; a collection may have another of this factor


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a weight file: ``task``, ``config`` and ``provenance``, the last two as dictionaries.

    Raises:
        WeightsError: The file is missing, not safetensors, or not written by :func:`.weights.save_network`.
    """
    with open_weights(path) as file:
        return parse_metadata(path, file.metadata())


def find_weights(name_or_path: str | Path, written: Path | None = None) -> Path:
    """The weights file at a path, or with a name of :func:`named_weights`.

    Args:
        name_or_path: The name or the path.
        written: A file that no name means, as the caller's training writes it. So a training that begins with the
            network that ships under its own name finds the same one when it is resumed.

    Raises:
        WeightsError: There is no such file or name; the message lists the names.
    """
    path = Path(name_or_path)
    with suppress(OSError):  # a folder without permission, such as the current folder of another user
        if path.is_file():
            return path
    named = named_weights(written)
    if str(name_or_path) in named:
        return named[str(name_or_path)]
    hint = did_you_mean(str(name_or_path), named)
    raise WeightsError(f"{name_or_path} is neither a weights file nor the name of a network{hint} ({known_names()})")


def known_names() -> str:
    """The names of all networks, for a message."""
    own = ", ".join(own_weights())
    return f"those that ship: {', '.join(shipped_weights()) or 'none'}" + (f"; in {OWN}/: {own}" if own else "")


def find_distinct(models: Iterable[str | Path]) -> dict[str, Path]:
    """The files of several networks, each as by :func:`find_weights`, by the file's name.

    Raises:
        WeightsError: As :func:`find_weights`, or two have the same name.
    """
    found: dict[str, Path] = {}
    for file in map(find_weights, models):
        if file.resolve() != found.get(file.stem, file).resolve():
            raise WeightsError(f"{found[file.stem]} and {file} would both be {file.stem}: rename one")
        found[file.stem] = file
    return found


def named_weights(written: Path | None = None) -> dict[str, Path]:
    """Names and files of all networks but ``written``; the user's own replaces one that ships with the same name."""
    unnamed = written and written.resolve()
    own = {name: file for name, file in own_weights().items() if file.resolve() != unnamed}
    return shipped_weights() | own


def shipped_weights() -> dict[str, Path]:
    """Names and files of the networks that ship with this package, in alphabetical order."""
    try:
        models = import_module("perceptual_models")  # the folder models/, under its installed name
    except ModuleNotFoundError:  # code in an archive has no such package
        return {}
    return {name: Path(folder, f"{name}.safetensors") for folder in models.__path__ for name in models.NETWORKS}


def for_one_collection(networks: Mapping[str, Path]) -> dict[str, Path]:
    """The first of the networks for style, and the first for each factor of super-resolution, by name.

    Raises:
        WeightsError: As :func:`read_metadata`.
    """
    by_scale: dict[int, tuple[str, Path]] = {}
    for name, file in networks.items():
        by_scale.setdefault(scale_of(file), (name, file))
    return dict(by_scale[scale] for scale in sorted(by_scale))


def scale_of(file: Path) -> int:
    """A network's factor of enlargement; 1 for style. Raises WeightsError, as :func:`read_metadata`."""
    scale: int = read_metadata(file)["config"].get("scale", 1)
    return scale


def own_weights() -> dict[str, Path]:
    """Names and files of the networks in the folder ``networks/``, where trainings write."""
    return {file.stem: file for file in sorted(OWN.glob("*.safetensors"))}


def styles_in(file: str | Path) -> list[dict[str, Any]]:
    """The styles of a weights file: ``name`` and, if known, ``title``, ``artist``, ``year`` and ``licence``.

    Raises:
        WeightsError: As :func:`read_metadata`.
    """
    file = Path(file)
    metadata = read_metadata(file)
    return facts_of_styles(metadata, file.stem) if metadata["task"] != "super-resolution" else []


def facts_of_styles(metadata: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The styles in metadata, as :func:`styles_in`.

    Args:
        metadata: From :func:`read_metadata`.
        name: The style's name, in a network of one style.
    """
    known = known_styles(metadata["provenance"], name)
    return [{fact: each[fact] for fact in FACTS if each.get(fact)} for each in known]


def known_styles(provenance: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The part of a network's provenance about each style, with its ``name``; ``name`` is that of an only style."""
    return provenance.get("styles") or [{**provenance, "name": name}]


def open_weights(path: str | Path, framework: str = "np") -> Any:
    """Opens a safetensors file; only its header is read. Raises WeightsError."""
    try:
        return safe_open(path, framework=framework)
    except FileNotFoundError as error:
        raise WeightsError(f"there is no weights file {path}") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a safetensors file, or is damaged: {in_one_line(error)}") from error


def parse_metadata(path: str | Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """Checks and decodes the metadata strings of a weight file. Raises WeightsError."""
    metadata = metadata or {}
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "none")
        raise WeightsError(f"{path} was not written by this program (format {FORMAT} expected, {found} found)")
    if (task := metadata.get("task")) not in TASKS:
        raise WeightsError(f"{path} is for the task {task}; this version supports {', '.join(TASKS)}")
    try:
        known = {name: dict(json.loads(metadata[name])) for name in ("config", "provenance")}
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} has damaged metadata: {in_one_line(error)}") from error
    parts = dict.fromkeys(("recipe", "training"), dict) | {"earlier_trainings": list}
    if bad := [name for name, kind in parts.items() if not isinstance(known["provenance"].get(name, kind()), kind)]:
        raise WeightsError(f"{path} has damaged metadata: {bad[0]} is not as this program writes it")
    if task == LEARNED and not isinstance(known["config"].get("trunk"), str):
        raise WeightsError(f"{path} has damaged metadata: it does not say on which trunk the style was learned")
    return {"task": task, **known}
