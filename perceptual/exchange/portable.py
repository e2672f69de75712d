"""Networks for export, of plain layers, for images of any size.

They compute the same as the networks of :mod:`perceptual.inference.networks`. Padding, cropping and grain are included,
kernels are constants, and a style that is baked in is part of the norm layers.
"""

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..inference.grain import levels
from ..inference.networks import ImageTransformationNetwork, StyleNetwork, SuperResolutionNetwork
from ..inference.networks.layers import ResizeConvolution
from ..inference.networks.norms import InstanceNorm
from ..inference.resampling import resize_bicubic


def portable(
    network: ImageTransformationNetwork, style: Tensor | None = None, *, grain: float = 0.0, half: bool = False
) -> "Portable":
    """A network of plain layers, from RGB in [0, 1], N×3×H×W, to N×3×(scale·H)×(scale·W), for any height and width.

    Args:
        network: In evaluation mode, on the CPU; it is not changed.
        style: To be baked in, 1×P. Without it, a network with norms takes styles, N×P, as second input.
        grain: Strength of the grain that images get first, for a style network.
        half: Whether the weights are stored in half precision; computation is in float32 in any case.
    """
    result: Portable
    if isinstance(network, SuperResolutionNetwork):
        result = Upscaler(network)
    else:
        network = cast("StyleNetwork", network)
        needs_style = network.style_numbers > 0 and style is None
        result = StylizerOfMany(network, None, grain) if needs_style else StylizerOfOne(network, style, grain)
    result = result.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)
    return with_halves(result) if half else result


class Portable(nn.Module):
    """The base class of portable networks: padding for any size.

    Args:
        layers: The plain layers.
        minimum: Minimum side of padded images, in pixels.
        multiple: Padded sides are a multiple of it.
        border: Width of a reflected border that is added after that, in pixels.
    """

    def __init__(self, layers: nn.Module, minimum: int, multiple: int = 1, border: int = 0) -> None:
        super().__init__()
        self.layers = layers
        self.minimum = minimum
        self.multiple = multiple
        self.border = border

    def padded(self, images: Tensor) -> Tensor:
        """Repeats the edges of images at the right and below, then reflects."""
        height, width = images.shape[2], images.shape[3]
        return images.index_select(2, self.places(height)).index_select(3, self.places(width))

    def places(self, side: int) -> Tensor:
        """For each pixel along a padded side, the index of its pixel in the image."""
        padded = max(self.minimum, (side + self.multiple - 1) // self.multiple * self.multiple)
        places = torch.arange(-self.border, padded + self.border).abs()
        return torch.minimum(places, 2 * (padded - 1) - places).clamp(max=side - 1)


class Stylizer(Portable):
    """The base class of portable style networks."""

    def __init__(self, network: StyleNetwork, style: Tensor | None, grain: float) -> None:
        super().__init__(plain(network.transform, style), network.minimum_size, network.multiple, network.border)
        self.grain = Grain(grain) if grain else nn.Identity()
        self.linear = bool(network.config["output"] == "linear")
        self.leak = network.leak

    def prepared(self, images: Tensor) -> Tensor:
        """Images with grain, padded."""
        return self.padded(self.grain(images))

    def complete(self, x: Tensor, images: Tensor) -> Tensor:
        """Maps the layers' output to images of the size of ``images``."""
        x = x[:, :, : images.shape[2], : images.shape[3]]
        if not self.linear:
            x = torch.tanh(x) + self.leak * x
        return ((x + 1) / 2).clamp(0, 1)


class Grain(nn.Module):
    """Adds grain of a strength; see :mod:`perceptual.inference.grain`."""

    levels: Tensor

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.register_buffer("levels", levels(strength))

    def forward(self, images: Tensor) -> Tensor:
        """Maps images N×3×H×W in [0, 1] to the same with grain."""
        rows = torch.arange(images.shape[2]) % self.levels.shape[2]
        columns = torch.arange(images.shape[3]) % self.levels.shape[3]
        return (images + self.levels.index_select(2, rows).index_select(3, columns) / 255).clamp(0, 1)


class StylizerOfOne(Stylizer):
    """A style network without norms, or with a style baked in; see :func:`portable`."""

    def forward(self, images: Tensor) -> Tensor:
        """Stylizes images."""
        return self.complete(self.layers(self.prepared(images)), images)


class StylizerOfMany(Stylizer):
    """A style network that takes styles as second input; see :func:`portable`."""

    def forward(self, images: Tensor, style: Tensor) -> Tensor:
        """Stylizes images, each by its own of the styles N×P."""
        return self.complete(self.layers(self.prepared(images), style), images)


class Upscaler(Portable):
    """A super-resolution network; see :func:`portable`."""

    def __init__(self, network: SuperResolutionNetwork) -> None:
        super().__init__(plain(network.transform, None), network.minimum_size)
        self.scale = network.scale
        self.residual = bool(network.config["output"] == "residual")
        self.bicubic = bicubic(network.scale)

    def forward(self, images: Tensor) -> Tensor:
        """Enlarges images."""
        height, width = images.shape[2], images.shape[3]
        x: Tensor = self.layers(self.padded(images))[:, :, : self.scale * height, : self.scale * width]
        if not self.residual:
            return (torch.tanh(x) + 1) / 2
        mirrored = images.index_select(2, self.mirrored(height)).index_select(3, self.mirrored(width))
        enlarged: Tensor = self.bicubic(mirrored)
        return (enlarged + x).clamp(0, 1)

    def mirrored(self, side: int) -> Tensor:
        """For each pixel along a mirrored side, the index of its pixel in the image."""
        places = torch.arange(-2, side + 2)  # the radius of the bicubic kernel
        places = torch.maximum(places, -1 - places)
        return torch.minimum(places, 2 * side - 1 - places).clamp(min=0)


def bicubic(scale: int) -> nn.ConvTranspose2d:
    """The transposed convolution that enlarges mirrored images as :func:`resize_bicubic` does."""
    impulse = torch.zeros(1, 1, 9, 9)
    impulse[..., 4, 4] = 1
    kernel = resize_bicubic(impulse, scale)[..., 5 * scale // 2 : 13 * scale // 2, 5 * scale // 2 : 13 * scale // 2]
    layer = nn.ConvTranspose2d(3, 3, 4 * scale, scale, 7 * scale // 2, groups=3, bias=False)
    layer.weight = nn.Parameter(kernel.repeat(3, 1, 1, 1))
    return layer


def plain(layers: nn.Module, style: Tensor | None) -> nn.Module:
    """A copy of layers with transposed convolutions for resize-convolutions, and with a style baked in if given."""
    copied = copy.deepcopy(layers)
    for parent in list(copied.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, InstanceNorm):
                setattr(parent, name, PlainNorm(layer) if style is None else baked(layer, style))
            elif isinstance(layer, ResizeConvolution):
                setattr(parent, name, transposed(layer))
    return copied


class PlainNorm(InstanceNorm):
    """An instance norm with a style for each image."""

    def __init__(self, norm: InstanceNorm) -> None:
        super().__init__(norm.features)
        self.place = norm.place

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Maps N×C×H×W to the same shape, by styles N×P."""
        scale, shift = self.parameters_of(style)
        return F.instance_norm(x, eps=self.eps) * scale[..., None, None] + shift[..., None, None]


def baked(norm: InstanceNorm, style: Tensor) -> nn.InstanceNorm2d:
    """A norm with a style, 1×P, baked in."""
    layer = nn.InstanceNorm2d(norm.features, eps=norm.eps, affine=True)
    scale, shift = norm.parameters_of(style)
    layer.load_state_dict({"weight": scale[0], "bias": shift[0]})
    return layer


def transposed(layer: ResizeConvolution) -> nn.ConvTranspose2d:
    """The transposed convolution that is equal to a resize-convolution."""
    kernels, bias = layer.spread_kernels(), layer.bias
    inputs, outputs, side, _ = kernels.shape
    result = nn.ConvTranspose2d(inputs, outputs, side, 2, layer.padding_of_spread, bias=bias is not None)
    result.load_state_dict({"weight": kernels} | ({} if bias is None else {"bias": bias}))
    return result


class ToFloat32(nn.Module):
    """Converts weights that are stored in half precision to float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Converts a tensor to float32."""
        return x.float()


def with_halves(network: Portable) -> Portable:
    """Stores the weights of its layers' convolutions in half precision.

    Not those of transposed convolutions: rounded, they would draw a checkerboard into an area of one colour, which the
    norms amplify if there is nothing else in the picture.
    """
    for layer in [each for each in network.layers.modules() if isinstance(each, nn.Conv2d)]:
        layer.weight = nn.Parameter(layer.weight.half(), requires_grad=False)
        parametrize.register_parametrization(layer, "weight", ToFloat32(), unsafe=True)
    return network
