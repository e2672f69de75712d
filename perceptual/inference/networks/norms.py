"""Normalization layers. Instance norms are conditional: a style is the scales and shifts of all of them."""

import copy
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Normalization = Literal["instance", "batch", "none"]

M = TypeVar("M", bound=nn.Module)


class InstanceNorm(nn.Module):
    """Conditional instance normalization (Dumoulin et al. 2017, https://arxiv.org/abs/1610.07629).

    Normalizes each channel of each image, then applies the scale and shift of the image's style.

    Args:
        features: Number of channels, C.
    """

    eps = 1e-5

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.place = slice(0, 2 * features)  # position of its scales and shifts in a style; see place_norms()

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Maps N×C×H×W to the same shape, by styles N×P."""
        scale, shift = self.parameters_of(style)
        n, c, h, w = x.shape
        if n == 1:
            return F.group_norm(x, c, scale[0], shift[0])
        if x.is_contiguous():  # treats all images as channels of one, for a single pass over memory
            return F.group_norm(x.view(1, n * c, h, w), n * c, scale.flatten(), shift.flatten()).view(n, c, h, w)
        return torch.addcmul(shift[..., None, None], F.group_norm(x, c), scale[..., None, None])

    def parameters_of(self, style: Tensor) -> tuple[Tensor, Tensor]:
        """The part of styles N×P for this layer: scale and shift, N×C each."""
        scale, shift = style[:, self.place].chunk(2, dim=1)
        return scale, shift


def norm_layer(kind: Normalization, features: int) -> nn.Module:
    """An affine normalisation layer, or none."""
    if kind == "none":
        return nn.Identity()
    return InstanceNorm(features) if kind == "instance" else nn.BatchNorm2d(features)


def with_norms(layers: M, kind: type[InstanceNorm]) -> M:
    """A copy of layers whose instance norms are replaced by another class, with their positions in a style."""
    copied = copy.deepcopy(layers)
    for parent in list(copied.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, InstanceNorm):
                other = kind(norm.features)
                other.place = norm.place
                setattr(parent, name, other)
    return copied


def place_norms(network: nn.Module) -> int:
    """Sets the position of each norm in a style, in order; returns P, how many numbers a style has."""
    first = 0
    for norm in network.modules():
        if isinstance(norm, InstanceNorm):
            norm.place = slice(first, first + 2 * norm.features)
            first = norm.place.stop
    return first


def neutral_style(network: nn.Module) -> Tensor:
    """The style that scales by 1 and shifts by 0, P numbers."""
    norms = [each for each in network.modules() if isinstance(each, InstanceNorm)]
    return torch.cat([torch.zeros(0), *(torch.arange(2 * each.features).lt(each.features).float() for each in norms)])
