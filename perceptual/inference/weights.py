"""Weight files: safetensors whose metadata says how to build the network and where it came from.

The metadata has four strings: ``format`` (this layout's name), ``task`` (a key of :data:`NETWORKS`), ``config`` (the
network's constructor arguments as JSON) and ``provenance`` (JSON: recipe, iterations, versions, licence, …).
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..errors import WeightsError, in_one_line
from ..files import write_atomically
from .earlier import in_todays_layout
from .networks import ImageTransformationNetwork, StyleNetwork, SuperResolutionNetwork

FORMAT = "torchserve-perceptual/1"
NETWORKS: dict[str, type[ImageTransformationNetwork]] = {
    network.task: network for network in (StyleNetwork, SuperResolutionNetwork)
}


def save_network(path: str | Path, network: ImageTransformationNetwork, provenance: Mapping[str, Any]) -> None:
    """Writes a network in half precision with its configuration and provenance, atomically.

    Raises:
        WeightsError: A weight is not finite, or does not fit in half precision.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    halves = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
    if bad := [key for key, value in halves.items() if not torch.isfinite(value).all()]:
        raise WeightsError(f"not saved to {path}: {bad[0]} is not finite in half precision")
    metadata = {
        "format": FORMAT,
        "task": network.task,
        "config": json.dumps(network.config),
        "provenance": json.dumps(dict(provenance)),
    }
    write_atomically(path, save(halves, metadata))


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What a weight file says of itself: ``task``, ``config`` and ``provenance``, the last two as dictionaries.

    Raises:
        WeightsError: The file is missing, not safetensors, or not written by :func:`save_network`.
    """
    with open_weights(path) as file:
        return parse_metadata(path, file.metadata())


def load_network(path: str | Path) -> tuple[ImageTransformationNetwork, dict[str, Any]]:
    """Builds the network a weight file describes, in float32 on the CPU, ready for inference.

    Returns:
        The network in ``eval`` mode and the metadata as from :func:`read_metadata`.

    Raises:
        WeightsError: As in :func:`read_metadata`, or the weights do not fit the network.
    """
    with open_weights(path) as file:
        metadata = parse_metadata(path, file.metadata())
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary
    try:
        network = NETWORKS[metadata["task"]](**metadata["config"])
        tensors = in_todays_layout(network, tensors)
        network.load_state_dict({key: t.float() if t.is_floating_point() else t for key, t in tensors.items()})
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError) as error:
        raise WeightsError(f"{path} does not fit its own network: {in_one_line(error)}") from error
    return network.eval().requires_grad_(False), metadata


def find_weights(name_or_path: str | Path) -> Path:
    """The file behind a path, or behind the name of a network that ships.

    Raises:
        WeightsError: Neither a file nor a shipped name; the message lists the names.
    """
    path = Path(name_or_path)
    with suppress(OSError):  # a folder that may not be looked into, as the current one of another user
        if path.is_file():
            return path
    shipped = shipped_weights()
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    names = ", ".join(shipped) or "none"
    raise WeightsError(f"{name_or_path} is neither a weights file nor the name of a shipped network ({names})")


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


def shipped_weights() -> dict[str, Path]:
    """Names and files of the networks that came with this package, in alphabetical order."""
    spec = find_spec("perceptual_models")  # the folder models/, under its installed name
    folders = spec.submodule_search_locations if spec else None
    return {file.stem: file for folder in folders or [] for file in sorted(Path(folder).glob("*.safetensors"))}


def open_weights(path: str | Path) -> Any:
    """A safetensors file opened for reading (its header alone is read now)."""
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError as error:
        raise WeightsError(f"there is no weights file {path}") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a safetensors file, or a damaged one: {in_one_line(error)}") from error


def parse_metadata(path: str | Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """Checks and decodes the metadata strings of a weight file."""
    metadata = metadata or {}
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "none")
        raise WeightsError(f"{path} was not written by this program (format {FORMAT} expected, {found} found)")
    if (task := metadata.get("task")) not in NETWORKS:
        raise WeightsError(f"{path} is for the task {task}; this version knows {', '.join(NETWORKS)}")
    try:
        known = {name: dict(json.loads(metadata[name])) for name in ("config", "provenance")}
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} has damaged metadata: {in_one_line(error)}") from error
    parts = dict.fromkeys(("recipe", "training"), dict) | {"earlier_trainings": list}
    if bad := [name for name, kind in parts.items() if not isinstance(known["provenance"].get(name, kind()), kind)]:
        raise WeightsError(f"{path} has damaged metadata: {bad[0]} is not as this program writes it")
    return {"task": task, **known}
