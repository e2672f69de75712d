"""The image transformation networks of Johnson et al. 2016, configurable.

Every network takes and returns RGB in [0, 1], for any height and width of at least 1; normalisation, padding to a
size the layers can take, and cropping back happen inside. Layers follow the paper's supplementary material
(https://cs.stanford.edu/people/jcjohns/papers/eccv16/JohnsonECCV16Supplementary.pdf, tables 1 and 2).
"""

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .resampling import resize_bicubic

Normalization = Literal["instance", "batch", "none"]
Padding = Literal["layer", "border"]
Upsampling = Literal["resize", "nearest", "transposed"]

M = TypeVar("M", bound=nn.Module)

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
EXAMPLE = 1, 3, 64, 96  # an image; not a square, so that compilers do not take all for such


class ImageTransformationNetwork(nn.Module):
    """What every network says of itself.

    Attributes:
        task: What it does, as written in weight files.
        presets: Arguments of the constructor, by name.
        config: The arguments it was built with; enough to build it anew.
        scale: How many times higher and wider than the input the output is.
        reach: How many input pixels around it an output pixel depends on; None if on the whole image.
        tile: Side, in output pixels, of the square that is worked on at once: about 1.5 GiB by the default preset.
    """

    task: ClassVar[str]
    presets: ClassVar[dict[str, dict[str, Any]]]
    tile: ClassVar[int]
    scale = 1
    reach: int | None = None

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        if config["init_features"] < 1:
            raise ValueError(f"init_features is {config['init_features']}; a network has 1 at least")
        self.config = config
        self.normalize = Normalize(config.get("in_channels", 3))

    @property
    @abstractmethod
    def transform(self) -> "Stack":
        """All layers, for padded images N×3×H×W and, of a network with styles, styles N×P; engines run them."""

    @property
    def example(self) -> tuple[Tensor, ...]:
        """What ``transform`` can be given, with N = 1."""
        return (torch.zeros(EXAMPLE),)


class Normalize(nn.Module):
    """Makes of RGB images in [0, 1], N×3×H×W, what layers take: in [-1, 1], with 1 channel their luma."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W to N×C×H×W."""
        x = (2 * images).sub_(1)
        return luma(x) if self.channels == 1 else x


class Pad(nn.Module):
    """Pads height and width in the type that the input has.

    Autocast would pad in float32, which moves twice the bytes to no avail.

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
    """F.pad of mode ``replicate``, of which torch.compile mistakes the gradient's layout (up to 2.14 at least).

    See https://github.com/pytorch/pytorch/issues/179442.
    """
    x = torch.cat([*[x[..., :1, :]] * width, x, *[x[..., -1:, :]] * width], dim=2)
    return torch.cat([*[x[..., :1]] * width, x, *[x[..., -1:]] * width], dim=3)


class Convolution(nn.Conv2d):
    """A convolution of an odd kernel that reflects its input at the borders, so that height and width stay."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, kernel, stride, bias=bias)
        self.pad = Pad(kernel // 2, "reflect")

    def forward(self, x: Tensor) -> Tensor:
        """Maps N×C×H×W to N×C′×H×W, or to half of H and W, rounded up, with stride 2."""
        return super().forward(self.pad(x))


class InstanceNorm(nn.Module):
    """Normalizes each channel of each image, then applies the scale and shift of the image's own style.

    Conditional instance normalization (Dumoulin et al. 2017, https://arxiv.org/abs/1610.07629).

    Args:
        features: Number of channels, C.
    """

    eps = 1e-5

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.place = slice(0, 2 * features)  # of its scales and shifts in a style; the network sets where

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Maps N×C×H×W to the same shape, by styles N×P."""
        scale, shift = self.parameters_of(style)
        n, c, h, w = x.shape
        if n == 1:
            return F.group_norm(x, c, scale[0], shift[0])
        if x.is_contiguous():  # all images as channels of one: a single pass over memory
            return F.group_norm(x.view(1, n * c, h, w), n * c, scale.flatten(), shift.flatten()).view(n, c, h, w)
        return torch.addcmul(shift[..., None, None], F.group_norm(x, c), scale[..., None, None])

    def parameters_of(self, style: Tensor) -> tuple[Tensor, Tensor]:
        """This layer's scale and shift, N×C each, of styles N×P."""
        scale, shift = style[:, self.place].chunk(2, dim=1)
        return scale, shift


class Stack(nn.Sequential):
    """Layers one after another, of which those with norms are given the style."""

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Runs N×C×H×W through all layers, with styles N×P."""
        for layer in self:
            x = layer(x, style) if isinstance(layer, CONDITIONAL) else layer(x)
        return x


class ConvBlock(Stack):
    """Convolution, normalisation, ReLU. The shift of a norm makes a bias of the convolution redundant."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, normalization: Normalization
    ) -> None:
        super().__init__(
            Convolution(inputs, outputs, kernel, stride, bias=normalization == "none"),
            norm_layer(normalization, outputs),
            nn.ReLU(inplace=True),
        )


class ResizeConvolution(nn.Conv2d):
    """Enlarges twice and applies a 3×3 convolution, both at once and without the enlarged copy.

    Together they are a transposed convolution whose kernel is the 3×3 one spread by a tent, to 6×6, if pixels are
    enlarged bilinearly, or by a box, to 4×4, if they are repeated. Unlike one with free weights, it leaves no
    checkerboard (Odena et al. 2016, https://distill.pub/2016/deconv-checkerboard/). Repeating pixels makes stairs of
    every gradient, and losses on the features of a network that pools keep them as a grid. The input must be padded
    by 1.

    Args:
        inputs: Channels, C.
        outputs: Channels, C′.
        repeat: Whether pixels are repeated.
        bias: Whether there is one.
    """

    def __init__(self, inputs: int, outputs: int, *, repeat: bool, bias: bool) -> None:
        super().__init__(inputs, outputs, 3, bias=bias)
        self.spread = (1.0, 1.0) if repeat else (0.25, 0.75, 0.75, 0.25)

    @property
    def padding_of_spread(self) -> int:
        """Of the transposed convolution, so that it makes exactly 2H×2W pixels."""
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
    """Doubles height and width, then normalisation and ReLU.

    ``resize`` and ``nearest`` are resize-convolutions, bilinear or repeating pixels; ``transposed`` is the paper's
    fractionally strided convolution.
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


CONDITIONAL = (InstanceNorm, Stack, ResidualBlock)


class StyleNetwork(ImageTransformationNetwork):
    """The style transfer network: two strided convolutions down, residual blocks, two upsamplings.

    With instance normalization it holds any number of styles: a style is the P numbers that all norms scale and shift
    by, 3,200 in the default preset, and styles mix as numbers do.

    Args:
        styles: Number of styles.
        sizes: Sizes at which each is held, from fine to coarse strokes: 1 or 2.
        in_channels: 3 sees the photo in colour; 1 sees only its luma (the input is RGB all the same).
        init_features: Channels of the first layer; doubled at each of the two reductions.
        num_residuals: Number of residual blocks.
        normalization: ``instance`` (Ulyanov et al. 2016, https://arxiv.org/abs/1607.08022), the paper's ``batch``, or
            ``none``.
        padding: ``layer`` reflects at every convolution; ``border`` is the paper's one reflection of the input,
            40 px for 5 residual blocks, used up by unpadded residual blocks.
        upsampling: ``resize``, enlarging bilinearly; ``nearest``, repeating pixels; or the paper's ``transposed``
            convolution.
        output: The paper's scaled ``tanh``; ``leaky``, the same plus a twentieth of its argument; or ``linear``, the
            argument alone; the latter two clamped to [0, 1] in evaluation mode. A saturated tanh has no gradient, so
            black blobs that appear early would stay; with no tanh at all, the losses' fourth powers make the first
            steps explode.
        multiple: The sides of images are padded to a multiple of it: 4, as the strides ask for; or 1 leaves them as
            they are, as other projects do, whose statistics are those of the image alone.
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
            }
        )
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels is {in_channels}; it is 3 (colour) or 1 (luma)")
        if padding == "border" and normalization == "instance":
            # A large image is run in bands that know its statistics; those of the border would have to be among them.
            raise ValueError("padding border goes with normalization batch or none")
        if multiple not in (1, 4) or (multiple == 1 and normalization != "instance"):
            raise ValueError(f"multiple is {multiple}; it is 4, or 1 with normalization instance")
        self.multiple = multiple
        # Each unpadded residual block eats 2 px on each side of a feature map that is a quarter of the input's size.
        self.border = 8 * num_residuals if padding == "border" else 0
        self.minimum_size = max(16, self.border + 4)  # reflection needs more pixels than it pads
        if normalization != "instance":
            self.reach = 8 * num_residuals + 20  # residual blocks, all else; a multiple of 4, as the strides ask for
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
            weights: Share of each style; they add up to 1.
            stroke: From 0, the first of the sizes, to 1, the last.
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
            style: N×P, or 1×P for all; may be left out of a network that has one.
            transform: Instead of the network's own, as :func:`perceptual.inference.engines.build` makes it.
        """
        height, width = images.shape[-2:]
        x = pad_to_multiple(images, self.multiple, self.minimum_size)
        if self.border:
            x = F.pad(x, [self.border] * 4, mode="reflect")
        x = (transform or self.transform)(x, *self.conditions(style, len(images)))
        return self.complete(x)[..., :height, :width]

    def conditions(self, style: Tensor | None, count: int) -> tuple[Tensor, ...]:
        """What ``transform`` takes beside ``count`` images: a style for each, or nothing where there are no norms."""
        if not self.style_numbers:
            return ()
        if style is None:
            if self.styles[..., 0].numel() > 1:
                raise ValueError(f"say which of {len(self.styles)} styles")
            style = self.styles[0]
        return (style.expand(count, -1),)

    def complete(self, x: Tensor) -> Tensor:
        """Images of what the layers make, N×3×H×W."""
        x = x.float()
        if self.config["output"] == "linear":
            made = x + 1
        elif self.training:
            made = torch.tanh(x) + self.leak * x + 1
        else:
            made = torch.tanh(x).add_(x, alpha=self.leak).add_(1)  # in place, for the memory
        return made / 2 if self.training else made.div_(2).clamp_(0, 1)


class SuperResolutionNetwork(ImageTransformationNetwork):
    """The super-resolution network: residual blocks at the input's size, then a doubling for each factor of 2.

    Args:
        scale: 4 or 8.
        init_features: Channels of all layers.
        num_residuals: Number of residual blocks.
        normalization: The paper's ``batch``, or ``none``: norms make outputs depend on how images differ in contrast
            from those of the training, and cost PSNR (Lim et al. 2017, https://arxiv.org/abs/1707.02921).
        upsampling: ``resize`` or the paper's ``transposed`` convolution.
        output: The paper's scaled ``tanh``; or ``residual``, what to add to the bicubically enlarged input, clamped to
            [0, 1] in evaluation mode. Zero at the beginning, so that a training starts from bicubic.
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


def luma(images: Tensor) -> Tensor:
    """Brightness of RGB images, N×3×H×W to N×1×H×W (ITU-R BT.601 weights)."""
    weights = images.new_tensor(LUMA).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def norm_layer(kind: Normalization, features: int) -> nn.Module:
    """An affine normalisation layer, or none."""
    if kind == "none":
        return nn.Identity()
    return InstanceNorm(features) if kind == "instance" else nn.BatchNorm2d(features)


def with_norms(layers: M, kind: type[InstanceNorm]) -> M:
    """A copy of layers whose instance norms are of another kind, each at its place in a style."""
    copied = copy.deepcopy(layers)
    for parent in list(copied.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, InstanceNorm):
                other = kind(norm.features)
                other.place = norm.place
                setattr(parent, name, other)
    return copied


def place_norms(network: nn.Module) -> int:
    """Gives each norm of a network its place in a style, in order; returns how many numbers a style has."""
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


def pad_to_multiple(images: Tensor, multiple: int, minimum: int) -> Tensor:
    """Repeats the right and bottom edge until height and width are multiples of ``multiple``, ``minimum`` at least."""
    height, width = padded_size(images.shape[-2:], multiple, minimum)
    if images.shape[-2:] == (height, width):
        return images  # F.pad would copy them
    return F.pad(images, [0, width - images.shape[-1], 0, height - images.shape[-2]], mode="replicate")


def padded_size(size: Sequence[int], multiple: int, minimum: int) -> list[int]:
    """Height and width as :func:`pad_to_multiple` makes them."""
    return [max(minimum, math.ceil(side / multiple) * multiple) for side in size]
