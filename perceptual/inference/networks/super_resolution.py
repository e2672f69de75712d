"""The super-resolution network."""

import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ...options import SCALES
from ..resampling import resize_bicubic
from .base import EXAMPLE, ImageTransformationNetwork
from .layers import (
    ConvBlock,
    Convolution,
    ResidualBlock,
    Shortcut,
    Stack,
    UpsampleBlock,
    between,
    with_blends,
)
from .padding import pad_to_multiple

CRISP, FAITHFUL = 0.0, 1.0  # fidelities of the two sets of weights of a blended network

Enlargement = Literal["shuffle", "resize", "nearest", "transposed"]


class SuperResolutionNetwork(ImageTransformationNetwork):
    """The super-resolution network: residual blocks at the input's size, then the enlargement.

    The default preset does all of its work at the input's size and enlarges last, by one pixel shuffle (Shi et al.
    2016, https://arxiv.org/abs/1609.05158). The paper's has a doubling for each factor of 2.

    Args:
        scale: 2, 4 or 8.
        init_features: Channels of all layers.
        num_residuals: Number of residual blocks.
        normalization: The paper's ``batch``, or ``none``: batch norms make outputs worse for images whose contrast
            differs from the training's, and cost PSNR (Lim et al. 2017, https://arxiv.org/abs/1707.02921).
        upsampling: ``shuffle``, ``resize`` or the paper's ``transposed`` convolution.
        blended: Whether it holds two sets of weights, a crisp and a faithful one, between which each request chooses by
            its fidelity.
        output: The paper's scaled ``tanh``; or ``residual``, which is added to the bicubically enlarged input, and the
            sum clamped to [0, 1] in evaluation mode. It is zero at first, so that a training starts from bicubic,
            without a checkerboard.
    """

    task = "super-resolution"
    tile = 1024
    presets: ClassVar = {
        "paper": {"normalization": "batch", "upsampling": "transposed", "output": "tanh"},
        "default": {"num_residuals": 8, "upsampling": "shuffle"},
        "fast": {"init_features": 32, "upsampling": "shuffle"},
    }

    def __init__(
        self,
        *,
        scale: int,
        init_features: int = 64,
        num_residuals: int = 4,
        normalization: Literal["batch", "none"] = "none",
        upsampling: Enlargement = "resize",
        blended: bool = False,
        output: Literal["residual", "tanh"] = "residual",
    ) -> None:
        super().__init__(
            {
                "scale": scale,
                "init_features": init_features,
                "num_residuals": num_residuals,
                "normalization": normalization,
                "upsampling": upsampling,
                "blended": blended,
                "output": output,
            }
        )
        if scale not in SCALES:
            raise ValueError(f"scale is {scale}; it is 2, 4 or 8")
        if normalization not in ("batch", "none"):
            raise ValueError(f"normalization is {normalization}; it is batch or none")
        if blended and (upsampling != "shuffle" or normalization != "none"):
            raise ValueError("only networks of convolutions alone, which end in a shuffle, can be blended")
        self.scale = scale
        self.minimum_size = 8  # reflection needs more pixels than it pads
        blocks = [ResidualBlock(init_features, normalization=normalization) for _ in range(num_residuals)]
        if upsampling == "shuffle":
            self.reach = 2 * num_residuals + 3  # residual blocks, and the other three layers
            last = Convolution(init_features, 3 * scale**2, 3)
            rest = [
                Convolution(3, init_features, 3),
                Shortcut(*blocks, Convolution(init_features, init_features, 3)),
                last,
                nn.PixelShuffle(scale),
            ]
        else:
            self.reach = 4 + 2 * num_residuals + 3  # first layer, residual blocks, and all layers at larger sizes
            last = Convolution(init_features, 3, 9)
            double = partial(UpsampleBlock, normalization=normalization, upsampling=upsampling)
            rest = [
                ConvBlock(3, init_features, 9, normalization=normalization),
                *blocks,
                *(double(init_features, init_features) for _ in range(int(math.log2(scale)))),
                last,
            ]
        if output == "residual":
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
        layers = Stack(*rest)
        self.layers = with_blends(layers) if blended else layers

    @property
    def transform(self) -> Stack:
        """See the base class."""
        return Stack(self.normalize, self.layers)

    @property
    def example(self) -> tuple[Tensor, ...]:
        """See the base class."""
        return (torch.zeros(EXAMPLE), torch.ones(1, 1)) if self.config["blended"] else (torch.zeros(EXAMPLE),)

    def forward(
        self, images: Tensor, fidelity: Tensor | None = None, transform: Callable[..., Tensor] | None = None
    ) -> Tensor:
        """Maps RGB images in [0, 1], N×3×H×W, to N×3×(scale·H)×(scale·W).

        In training mode, a residual output may leave [0, 1] a little.

        Args:
            images: The images.
            fidelity: Of a blended network: N×1, from 0, crisp, to 1, faithful; default 1.
            transform: As for the style network.
        """
        height, width = (self.scale * side for side in images.shape[-2:])
        x = pad_to_multiple(images, 1, self.minimum_size)
        x = (transform or self.transform)(x, *self.conditions(fidelity, len(images)))[..., :height, :width].float()
        if self.config["output"] == "tanh":
            return (torch.tanh(x) + 1) / 2
        x = resize_bicubic(images, self.scale) + x
        return x if self.training else x.clamp(0, 1)

    def conditions(self, fidelity: Tensor | None, count: int) -> tuple[Tensor, ...]:
        """The further inputs of ``transform``: a blended network's fidelity for each of ``count`` images, N×1."""
        if not self.config["blended"]:
            return ()
        if fidelity is None:
            fidelity = next(self.parameters()).new_ones(1, 1)
        return (fidelity.expand(count, -1),)

    def settled(self, fidelity: float) -> "SuperResolutionNetwork":
        """The network with one set of weights, of a fidelity; itself if it has but one. In evaluation mode."""
        if not self.config["blended"]:
            return self
        network = SuperResolutionNetwork(**{**self.config, "blended": False})
        share = torch.tensor(fidelity, device=next(self.parameters()).device)
        network.load_state_dict({name: between(each, share) for name, each in self.state_dict().items()})
        return network.eval().requires_grad_(False)


def blended(crisp: SuperResolutionNetwork, faithful: SuperResolutionNetwork) -> SuperResolutionNetwork:
    """The network of two sets of weights, in evaluation mode.

    Raises:
        ValueError: The two have other layers, or not convolutions alone.
    """
    if crisp.config != faithful.config:
        raise ValueError("only networks of the same layers can be blended")
    network = SuperResolutionNetwork(**{**crisp.config, "blended": True})
    others = faithful.state_dict()
    network.load_state_dict({name: torch.cat([each, others[name]]) for name, each in crisp.state_dict().items()})
    return network.eval().requires_grad_(False)
