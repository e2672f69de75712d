"""Writes networks to weight files, and loads them; :mod:`.metadata` reads the files' metadata without torch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from ..errors import WeightsError, in_one_line
from ..files import write_atomically
from .earlier import in_present_layout
from .metadata import FORMAT
from .networks import ImageTransformationNetwork, StyleNetwork, SuperResolutionNetwork
from .styles import assemble

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


def load_network(
    path: str | Path, styles: Sequence[str | Path] = ()
) -> tuple[ImageTransformationNetwork, dict[str, Any]]:
    """Builds the network a weight file describes, in float32 on the CPU, ready for inference.

    Args:
        path: Weights of a network; or of a learned style, which gives a network of this style alone.
        styles: Files of styles learned on this network, which are added to those it has.

    Returns:
        The network in ``eval`` mode and its metadata as from :func:`.metadata.read_metadata`.

    Raises:
        WeightsError: As in :func:`.metadata.read_metadata` and :func:`.styles.assemble`, or the weights do not fit the
            network.
        InputError: The name of a style cannot be served.
    """
    metadata, arrays = assemble(path, styles)
    tensors = {key: torch.tensor(value) for key, value in arrays.items()}
    try:
        network = NETWORKS[metadata["task"]](**metadata["config"])
        tensors = in_present_layout(network, tensors)
        network.load_state_dict({key: t.float() if t.is_floating_point() else t for key, t in tensors.items()})
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError) as error:
        raise WeightsError(f"{path} does not fit its own network: {in_one_line(error)}") from error
    return network.eval().requires_grad_(False), metadata
