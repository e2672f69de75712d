"""The super-resolution network."""

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ..resampling import resize_bicubic
from .base import ImageTransformationNetwork
from .layers import ConvBlock, Convolution, ResidualBlock, Stack, UpsampleBlock, Upsampling
from .norms import Normalization
from .padding import pad_to_multiple


class SuperResolutionNetwork(ImageTransformationNetwork):
    """The super-resolution network: residual blocks at the input's size, then a doubling for each factor of 2.

    Args:
        scale: 4 or 8.
        init_features: Channels of all layers.
        num_residuals: Number of residual blocks.
        normalization: The paper's ``batch``, or ``none``: batch norms make outputs worse for images whose contrast
            differs from the training's, and cost PSNR (Lim et al. 2017, https://arxiv.org/abs/1707.02921).
        upsampling: ``resize`` or the paper's ``transposed`` convolution.
        output: The paper's scaled ``tanh``; or ``residual``, which is added to the bicubically enlarged input, and the
            sum clamped to [0, 1] in evaluation mode. It is zero at first, so that a training starts from bicubic.
    """

    task = "super-resolution"
    tile = 1024
    presets: ClassVar = {
        "paper": {"normalization": "batch", "upsampling": "transposed", "output": "tanh"},
        "default": {},
        "fast": {"init_features": 32},
    }

    def __init__(
        self,
        *,
        scale: int,
        init_features: int = 64,
        num_residuals: int = 4,
        normalization: Normalization = "none",
        upsampling: Upsampling = "resize",
        output: Literal["residual", "tanh"] = "residual",
    ) -> None:
        super().__init__(
            {
                "scale": scale,
                "init_features": init_features,
                "num_residuals": num_residuals,
                "normalization": normalization,
                "upsampling": upsampling,
                "output": output,
            }
        )
        if scale not in (4, 8):
            raise ValueError(f"scale is {scale}; it is 4 or 8")
        self.scale = scale
        self.minimum_size = 8  # reflection needs more pixels than it pads
        if normalization != "instance":
            self.reach = 4 + 2 * num_residuals + 3  # first layer, residual blocks, and all layers at larger sizes
        last = Convolution(init_features, 3, 9)
        if output == "residual":
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
        self.layers = Stack(
            ConvBlock(3, init_features, 9, normalization=normalization),
            *(ResidualBlock(init_features, normalization=normalization) for _ in range(num_residuals)),
            *(
                UpsampleBlock(init_features, init_features, normalization=normalization, upsampling=upsampling)
                for _ in range(int(math.log2(scale)))
            ),
            last,
        )

    @property
    def transform(self) -> Stack:
        """See the base class."""
        return Stack(self.normalize, self.layers)

    def forward(self, images: Tensor, transform: Callable[..., Tensor] | None = None) -> Tensor:
        """Maps RGB images in [0, 1], N×3×H×W, to N×3×(scale·H)×(scale·W).

        In training mode, a residual output may leave [0, 1] a little. ``transform`` as for the style network.
        """
        height, width = (self.scale * side for side in images.shape[-2:])
        x = pad_to_multiple(images, 1, self.minimum_size)
        x = (transform or self.transform)(x)[..., :height, :width].float()
        if self.config["output"] == "tanh":
            return (torch.tanh(x) + 1) / 2
        x = resize_bicubic(images, self.scale) + x
        return x if self.training else x.clamp(0, 1)
