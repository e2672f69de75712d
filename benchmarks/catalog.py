"""The networks that are measured, by name: every preset of every task."""

from typing import Any

import torch

from perceptual.inference.networks import ImageTransformationNetwork, StyleNetwork, SuperResolutionNetwork
from perceptual.options import SCALES

# Class and arguments. Typed Any, as each class takes arguments of its own.
CATALOG: dict[str, tuple[Any, dict[str, Any]]] = {
    **{f"style-{name}": (StyleNetwork, config) for name, config in StyleNetwork.presets.items()},
    **{
        f"x{scale}-{name}": (SuperResolutionNetwork, {"scale": scale, **config})
        for scale in SCALES
        for name, config in SuperResolutionNetwork.presets.items()
    },
}


def build(name: str) -> ImageTransformationNetwork:
    """A network with random weights, on which time and memory do not depend."""
    kind, config = CATALOG[name]
    network = kind(**config).eval()
    # Their last layer is initialized with zeros, which an engine might optimize away.
    if isinstance(network, SuperResolutionNetwork):
        *_, last = (each for each in network.layers.modules() if isinstance(each, torch.nn.Conv2d))
        torch.nn.init.normal_(last.weight, std=0.01)
    return network


def task_of(name: str) -> str:
    """The task of a network."""
    return CATALOG[name][0].task


def scale_of(name: str) -> int:
    """How many times larger a network's result is."""
    return CATALOG[name][1].get("scale", 1)
