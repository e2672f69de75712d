"""Reads style networks of earlier versions, which had one style, stored in the norm layers."""

from collections.abc import Mapping

import torch
from torch import Tensor

from .networks import ImageTransformationNetwork, StyleNetwork
from .networks.norms import InstanceNorm


def in_present_layout(network: ImageTransformationNetwork, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with the names of the present layout; tensors that have them already are not changed."""
    if not isinstance(network, StyleNetwork) or "styles" in tensors:
        return dict(tensors)
    blocks = len(network.blocks)
    parts = [
        *(("encoder", i) for i in range(3)),
        *(("blocks", i) for i in range(blocks)),
        *(("decoder", i) for i in range(3)),
    ]
    renamed = {}
    for key, value in tensors.items():
        _, place, rest = key.split(".", 2)
        part, index = parts[int(place)]
        renamed[f"{part}.{index}.{rest}"] = value
    norms = [name for name, layer in network.named_modules() if isinstance(layer, InstanceNorm)]
    numbers = [renamed.pop(f"{norm}.{kind}") for norm in norms for kind in ("weight", "bias")]
    return {**renamed, "styles": torch.cat([torch.zeros(0), *numbers])[None, None]}
