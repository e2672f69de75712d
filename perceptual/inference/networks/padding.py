"""Padding of features inside a network, and of its input images."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Pad(nn.Module):
    """Pads height and width, in the input's own type.

    Autocast would pad in float32, which moves twice the bytes without any use.

    Args:
        width: Pixels at each side.
        mode: ``reflect`` or ``replicate``, as for :func:`torch.nn.functional.pad`.
    """

    def __init__(self, width: int, mode: str) -> None:
        super().__init__()
        self.width = width
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        """Maps N×C×H×W to N×C×(H+2·width)×(W+2·width)."""
        with torch.autocast(x.device.type, enabled=False):
            if self.mode == "replicate" and torch.compiler.is_compiling():
                return repeat_edges(x, self.width)
            return F.pad(x, [self.width] * 4, mode=self.mode)


def repeat_edges(x: Tensor, width: int) -> Tensor:
    """F.pad of mode ``replicate``, for torch.compile, which gets the layout of its gradient wrong (up to 2.14).

    See https://github.com/pytorch/pytorch/issues/179442.
    """
    x = torch.cat([*[x[..., :1, :]] * width, x, *[x[..., -1:, :]] * width], dim=2)
    return torch.cat([*[x[..., :1]] * width, x, *[x[..., -1:]] * width], dim=3)


def pad_to_multiple(images: Tensor, multiple: int, minimum: int) -> Tensor:
    """Repeats the right and bottom edge until height and width are multiples of ``multiple``, at least ``minimum``."""
    height, width = padded_size(images.shape[-2:], multiple, minimum)
    if images.shape[-2:] == (height, width):
        return images  # F.pad would copy them
    return F.pad(images, [0, width - images.shape[-1], 0, height - images.shape[-2]], mode="replicate")


def padded_size(size: Sequence[int], multiple: int, minimum: int) -> list[int]:
    """Height and width after :func:`pad_to_multiple`."""
    return [max(minimum, math.ceil(side / multiple) * multiple) for side in size]
