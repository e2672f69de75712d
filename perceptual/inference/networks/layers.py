"""The layers that the networks are built of."""

import copy
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .norms import InstanceNorm, Normalization, norm_layer
from .padding import Pad

Upsampling = Literal["resize", "nearest", "transposed"]

M = TypeVar("M", bound=nn.Module)


class Convolution(nn.Conv2d):
    """A convolution with an odd kernel and reflection padding, which keeps height and width."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, kernel, stride, bias=bias)
        self.pad = Pad(kernel // 2, "reflect")

    def forward(self, x: Tensor) -> Tensor:
        """Maps N×C×H×W to N×C′×H×W, or to half of H and W, rounded up, with stride 2."""
        return super().forward(self.pad(x))


class BlendedConvolution(nn.Module):
    """A convolution with two sets of weights, between which the batch chooses by its fidelity.

    Interpolating the weights of two networks of a common origin gives networks of similar quality, whose pictures lie
    between theirs: section 3.4 of Wang et al. 2018 (https://arxiv.org/abs/1809.00219). It costs no more than one.

    The crisp weights are the first half of its kernels and biases, the faithful ones the second.

    Args:
        layer: A convolution, whose weights are both at first.
    """

    def __init__(self, layer: Convolution) -> None:
        super().__init__()
        self.pad = layer.pad
        self.weight = nn.Parameter(torch.cat([layer.weight.detach()] * 2))
        self.bias = nn.Parameter(torch.cat([layer.bias.detach()] * 2)) if layer.bias is not None else None

    def forward(self, x: Tensor, fidelity: Tensor) -> Tensor:
        """Maps N×C×H×W to N×C′×H×W, by N equal fidelities, N×1, from 0, crisp, to 1, faithful."""
        bias = None if self.bias is None else between(self.bias, fidelity[0])
        return F.conv2d(self.pad(x), between(self.weight, fidelity[0]), bias)


def between(weights: Tensor, fidelity: Tensor) -> Tensor:
    """The mean of the two halves of weights, the second of them by a share of ``fidelity``."""
    crisp, faithful = weights.chunk(2)
    return crisp.lerp(faithful, fidelity)


def with_blends(layers: M) -> M:
    """A copy of layers whose convolutions are replaced by blended ones."""
    copied = copy.deepcopy(layers)
    for parent in list(copied.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, Convolution):
                setattr(parent, name, BlendedConvolution(layer))
    return copied


class Stack(nn.Sequential):
    """Layers one after another; those with norms also receive the style, blended convolutions the fidelity."""

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Runs N×C×H×W through all layers, with styles N×P or fidelities N×1."""
        for layer in self:
            x = layer(x, style) if isinstance(layer, CONDITIONAL) else layer(x)
        return x


class ConvBlock(Stack):
    """Convolution, normalization, ReLU. With a norm the convolution has no bias, as the norm's shift replaces it."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, normalization: Normalization
    ) -> None:
        super().__init__(
            Convolution(inputs, outputs, kernel, stride, bias=normalization == "none"),
            norm_layer(normalization, outputs),
            nn.ReLU(inplace=True),
        )


class ResizeConvolution(nn.Conv2d):
    """Enlarges by 2 and applies a 3×3 convolution, in one operation, without an enlarged copy in memory.

    The two steps together equal a transposed convolution. Its kernel is the 3×3 kernel convolved with a tent, to 6×6,
    for bilinear enlargement, or with a box, to 4×4, if pixels are repeated. Unlike a transposed convolution with free
    weights, it leaves no checkerboard (Odena et al. 2016, https://distill.pub/2016/deconv-checkerboard/). Repeating
    pixels turns every gradient into stairs, which remain as a grid if the loss network pools.

    The input must be padded by 1.

    Args:
        inputs: Channels, C.
        outputs: Channels, C′.
        repeat: Whether pixels are repeated, or enlarged bilinearly.
        bias: Whether the convolution has a bias.
    """

    def __init__(self, inputs: int, outputs: int, *, repeat: bool, bias: bool) -> None:
        super().__init__(inputs, outputs, 3, bias=bias)
        self.spread = (1.0, 1.0) if repeat else (0.25, 0.75, 0.75, 0.25)

    @property
    def padding_of_spread(self) -> int:
        """Padding of the transposed convolution, which makes the output exactly 2H×2W."""
        return (len(self.spread) + 4) // 2

    def spread_kernels(self) -> Tensor:
        """The kernels of the transposed convolution, C×C′×K×K."""
        sides = self.weight.new_tensor(self.spread)
        kernels = F.pad(self.weight.flip(2, 3).flatten(0, 1)[:, None], [len(sides) - 1] * 4)
        spread = F.conv2d(kernels, torch.outer(sides, sides)[None, None])
        return spread.view(*self.weight.shape[:2], *spread.shape[2:]).transpose(0, 1)

    def forward(self, padded: Tensor) -> Tensor:
        """Maps N×C×(H+2)×(W+2) to N×C′×2H×2W."""
        return F.conv_transpose2d(padded, self.spread_kernels(), self.bias, stride=2, padding=self.padding_of_spread)


class UpsampleBlock(Stack):
    """Doubles height and width, then normalization and ReLU.

    ``resize`` and ``nearest`` are resize-convolutions, with bilinear enlargement or with repeated pixels;
    ``transposed`` is the paper's fractionally strided convolution.
    """

    def __init__(self, inputs: int, outputs: int, *, normalization: Normalization, upsampling: Upsampling) -> None:
        bias = normalization == "none"
        if upsampling == "transposed":
            convolution: list[nn.Module] = [nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, output_padding=1, bias=bias)]
        else:
            resize = ResizeConvolution(inputs, outputs, repeat=upsampling == "nearest", bias=bias)
            convolution = [Pad(1, "replicate"), resize]
        super().__init__(*convolution, norm_layer(normalization, outputs), nn.ReLU(inplace=True))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions around an identity, without a ReLU after the sum (Gross and Wilber 2016).

    Args:
        features: Channels in and out.
        normalization: Kind of the two norm layers.
        padded: False leaves the convolutions unpadded, as in the paper: the result is 2 px smaller on each side.
    """

    def __init__(self, features: int, *, normalization: Normalization, padded: bool = True) -> None:
        super().__init__()
        convolution, bias = (Convolution if padded else nn.Conv2d), normalization == "none"
        self.crop = 0 if padded else 2
        self.body = Stack(
            convolution(features, features, 3, bias=bias),
            norm_layer(normalization, features),
            nn.ReLU(inplace=True),
            convolution(features, features, 3, bias=bias),
            norm_layer(normalization, features),
        )

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Maps N×C×H×W to the same shape, or 4 px less in height and width where unpadded."""
        change: Tensor = self.body(x, style)
        return F.pad(x, [-self.crop] * 4) + change


class Shortcut(Stack):
    """Layers to whose output their input is added."""

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Maps N×C×H×W to the same shape."""
        return x + super().forward(x, style)


CONDITIONAL = (InstanceNorm, Stack, ResidualBlock, BlendedConvolution)
