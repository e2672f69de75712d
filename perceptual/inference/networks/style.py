"""The style transfer network."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import EXAMPLE, ImageTransformationNetwork
from .layers import ConvBlock, Convolution, ResidualBlock, Stack, UpsampleBlock, Upsampling
from .norms import Normalization, neutral_style, place_norms
from .padding import pad_to_multiple

Padding = Literal["layer", "border"]


class StyleNetwork(ImageTransformationNetwork):
    """The style transfer network: two strided convolutions, residual blocks, two upsamplings.

    With instance normalization it holds any number of styles. A style is the scales and shifts of all norms, P numbers
    (3,200 in the default preset); a weighted mean of styles is a style too.

    Args:
        styles: Number of styles.
        sizes: Number of stroke sizes of each style, from fine to coarse: 1 or 2.
        in_channels: 3 for the photo's colours, 1 for its luma alone (the input is RGB in both cases).
        init_features: Channels of the first layer; doubled at each of the two reductions.
        num_residuals: Number of residual blocks.
        normalization: ``instance`` (Ulyanov et al. 2016, https://arxiv.org/abs/1607.08022), the paper's ``batch``, or
            ``none``.
        padding: ``layer`` reflects at every convolution; ``border`` is the paper's single reflection of the input,
            40 px for 5 residual blocks, which unpadded residual blocks use up.
        upsampling: ``resize``, bilinear; ``nearest``, repeated pixels; or the paper's ``transposed`` convolution.
        output: The paper's scaled ``tanh``; ``leaky``, which adds a twentieth of tanh's argument; or ``linear``, the
            argument alone. The latter two are clamped to [0, 1] in evaluation mode. A saturated tanh has no gradient,
            so black blobs that appear early would stay; without tanh, the first steps explode, as the losses grow with
            the fourth power.
        multiple: Sides of images are padded to a multiple of it: 4, which suits the strides; or 1, no padding, as in
            networks of other projects, whose norm statistics are those of the image alone.
        grain: Strength of the grain with which its photos are stylized unless a request has its own, from 0 to 1: see
            :mod:`perceptual.inference.grain`. The network itself adds none.
    """

    task = "style"
    tile = 2048
    presets: ClassVar = {
        "paper": {"normalization": "batch", "padding": "border", "upsampling": "transposed", "output": "tanh"},
        "default": {},
        "fast": {"init_features": 16},
    }

    def __init__(
        self,
        *,
        styles: int = 1,
        sizes: int = 1,
        in_channels: int = 3,
        init_features: int = 32,
        num_residuals: int = 5,
        normalization: Normalization = "instance",
        padding: Padding = "layer",
        upsampling: Upsampling = "resize",
        output: Literal["leaky", "tanh", "linear"] = "leaky",
        multiple: Literal[1, 4] = 4,
        grain: float = 0.0,
    ) -> None:
        super().__init__(
            {
                "styles": styles,
                "sizes": sizes,
                "in_channels": in_channels,
                "init_features": init_features,
                "num_residuals": num_residuals,
                "normalization": normalization,
                "padding": padding,
                "upsampling": upsampling,
                "output": output,
                "multiple": multiple,
                "grain": grain,
            }
        )
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels is {in_channels}; it is 3 (colour) or 1 (luma)")
        if padding == "border" and normalization == "instance":
            # Bands use the statistics of the image, which would have to include the border.
            raise ValueError("padding border goes with normalization batch or none")
        if not 0 <= grain <= 1:
            raise ValueError(f"grain is {grain}; it is from 0 to 1")
        if multiple not in (1, 4) or (multiple == 1 and normalization != "instance"):
            raise ValueError(f"multiple is {multiple}; it is 4, or 1 with normalization instance")
        self.multiple = multiple
        self.grain = grain
        # Each unpadded residual block removes 2 px on each side of a feature map a quarter of the input's size.
        self.border = 8 * num_residuals if padding == "border" else 0
        self.minimum_size = max(16, self.border + 4)  # reflection needs more pixels than it pads
        if normalization != "instance":
            self.reach = 8 * num_residuals + 20  # residual blocks, all else; a multiple of 4, for the strides
        self.leak = 1 / 20 if output == "leaky" else 0.0
        few, some, many = init_features, 2 * init_features, 4 * init_features
        self.features = many
        self.encoder = Stack(
            ConvBlock(in_channels, few, 9, normalization=normalization),
            ConvBlock(few, some, 3, stride=2, normalization=normalization),
            ConvBlock(some, many, 3, stride=2, normalization=normalization),
        )
        self.blocks = Stack(
            *(ResidualBlock(many, normalization=normalization, padded=padding == "layer") for _ in range(num_residuals))
        )
        self.decoder = Stack(
            UpsampleBlock(many, some, normalization=normalization, upsampling=upsampling),
            UpsampleBlock(some, few, normalization=normalization, upsampling=upsampling),
            Convolution(few, 3, 9),
        )
        self.style_numbers = place_norms(self)
        self.styles = nn.Parameter(neutral_style(self).repeat(styles, sizes, 1))

    @property
    def transform(self) -> Stack:
        """See the base class."""
        return Stack(self.normalize, self.encoder, self.blocks, self.decoder)

    @property
    def example(self) -> tuple[Tensor, ...]:
        """See the base class."""
        image = torch.zeros(EXAMPLE)
        return (image, self.styles[:1, 0].detach().cpu()) if self.style_numbers else (image,)

    def style(self, weights: Sequence[float], stroke: float = 0) -> Tensor:
        """A mixture of styles, 1×P.

        Args:
            weights: Share of each style; the shares add up to 1.
            stroke: From 0, the first stroke size, to 1, the last.
        """
        sizes = self.styles[:, 0].lerp(self.styles[:, -1], stroke)
        return self.styles.new_tensor(weights)[None] @ sizes

    def forward(
        self, images: Tensor, style: Tensor | None = None, transform: Callable[..., Tensor] | None = None
    ) -> Tensor:
        """Maps RGB images in [0, 1], N×3×H×W, to stylized ones of the same form.

        In training mode, a leaky output may leave [0, 1] a little.

        Args:
            images: The photos.
            style: N×P, or 1×P for all; optional for a network of one style.
            transform: Replaces the network's own layers, as from :func:`perceptual.inference.engines.build`.
        """
        height, width = images.shape[-2:]
        x = pad_to_multiple(images, self.multiple, self.minimum_size)
        if self.border:
            x = F.pad(x, [self.border] * 4, mode="reflect")
        x = (transform or self.transform)(x, *self.conditions(style, len(images)))
        return self.complete(x)[..., :height, :width]

    def conditions(self, style: Tensor | None, count: int) -> tuple[Tensor, ...]:
        """The further inputs of ``transform``: a style for each of ``count`` images; none without instance norms."""
        if not self.style_numbers:
            return ()
        if style is None:
            if self.styles[..., 0].numel() > 1:
                raise ValueError(f"say which of {len(self.styles)} styles")
            style = self.styles[0]
        return (style.expand(count, -1),)

    def complete(self, x: Tensor) -> Tensor:
        """Maps the layers' output to images, N×3×H×W."""
        x = x.float()
        if self.config["output"] == "linear":
            scaled = x + 1
        elif self.training:
            scaled = torch.tanh(x) + self.leak * x + 1
        else:
            scaled = torch.tanh(x).add_(x, alpha=self.leak).add_(1)  # in place, for the memory
        return scaled / 2 if self.training else scaled.div_(2).clamp_(0, 1)
