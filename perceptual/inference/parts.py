"""Parts of large images."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Place = tuple[slice, slice, slice, slice]  # images, channels, rows and columns


class Part(NamedTuple):
    """The network's output for a part of an image.

    Attributes:
        place: The part's position in the whole result.
        outputs: The network's outputs, N×3×h×w, floats, on its device.
    """

    place: Place
    outputs: Tensor


Network = Callable[[Tensor], Tensor]  # of images N×3×H×W in [0, 1]


def whole(network: Network, images: Tensor) -> Part:
    """Runs a network on images N×3×H×W in [0, 1], in one pass."""
    everything = slice(None)
    return Part((everything,) * 4, network(images))


def to_float(images: Tensor, device: torch.device) -> Tensor:
    """Floats in [0, 1] on a device, of bytes or floats."""
    moved = images.to(device)
    return moved if moved.is_floating_point() else moved.float() / 255
