"""Style transfer of images that are too large for one pass: band by band, with the exact result.

Instance norm takes its statistics over the whole image, so no part can be run independently. For each norm layer in
turn, the network is run up to it, band by band, to measure the mean and variance of its input; these are then used as
constants. The residual blocks' features, a sixteenth of the image's size, are kept for the whole image in half
precision: 16 bytes per pixel of the image for the default network. Everything else is recomputed for each layer, about
two and a half times the work of one pass.

Estimating the statistics instead, from spread crops or a reduced image, changes the picture visibly: small errors add
up along the residual blocks.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .networks import StyleNetwork
from .networks.norms import InstanceNorm, with_norms
from .networks.padding import padded_size
from .parts import Part, to_float

REDUCTION = 4  # side of the image divided by side of the kept features; bands begin at multiples of it
LEAST_ROWS = 16  # minimum height of a band, in pixels of the image
# Receptive fields, in rows: of the encoder 4 + 1 + 2 rows of the image; of a block two rows of features; of the decoder
# one and a half rows of features and the last convolution's four of the image. Rounded up to where bands can begin.
ENCODER_MARGIN, BLOCK_MARGIN, DECODER_MARGIN = 8, 2, 3


def run_in_bands(
    network: StyleNetwork,
    image: Tensor,
    style: Tensor,
    pixels: int,
    device: torch.device,
    *,
    proceed: Callable[[], None] = lambda: None,
    bfloat16: bool = False,
) -> Iterator[Part]:
    """Runs a network with instance norm and padding ``layer`` on an image of any size.

    Args:
        network: The network, on the device.
        image: 1×3×H×W, floats in [0, 1] or bytes, on any device.
        style: 1×P, on the device.
        pixels: Size of a band, which has at least :data:`LEAST_ROWS` rows.
        device: Device for computing, and for the features.
        proceed: Called before each band of each layer; an exception aborts the work.
        bfloat16: Whether autocast runs eligible operations in bfloat16; the statistics stay in float32.

    Yields:
        Every band, from top to bottom; the first after the statistics of the whole image have been measured.
    """
    frozen = with_norms(network, FixedNorm).eval().requires_grad_(False)
    height, width = padded_size(image.shape[-2:], network.multiple, network.minimum_size)
    rows = max(LEAST_ROWS, pixels // width // REDUCTION * REDUCTION)

    def read_image(top: int, bottom: int) -> Tensor:
        normalized: Tensor = frozen.normalize(read_rows(image, top, bottom, width, device))
        return normalized

    autocast = torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)
    encoder = Section(frozen.encoder, style, read_image, height, rows, ENCODER_MARGIN, autocast, proceed)
    encoder.fix_statistics()
    features = torch.empty(
        (1, frozen.features, *(math.ceil(side / REDUCTION) for side in (height, width))),
        dtype=torch.float16,
        device=device,
        memory_format=torch.channels_last,
    )

    def read_features(top: int, bottom: int) -> Tensor:
        return features[..., top:bottom, :].float()

    for top, outputs in encoder.outputs():
        write_rows(features, top // REDUCTION, outputs)
    feature_rows = features.shape[2], rows // REDUCTION  # of the whole image, and of a band
    for block in frozen.blocks:
        section = Section(block, style, read_features, *feature_rows, BLOCK_MARGIN, autocast, proceed)
        section.fix_statistics()
        replace_rows(features, section.outputs())
    decoder = Section(frozen.decoder, style, read_features, *feature_rows, DECODER_MARGIN, autocast, proceed)
    decoder.fix_statistics()
    for top, outputs in decoder.outputs():
        first = REDUCTION * top
        band = slice(first, min(first + outputs.shape[2], image.shape[2]))
        styled = frozen.complete(outputs)[..., : band.stop - first, : image.shape[3]]
        yield Part((slice(None), slice(None), band, slice(None)), styled)


class FixedNorm(InstanceNorm):
    """An instance norm with a fixed mean and variance, C each, which must be set before it runs."""

    mean: Tensor
    variance: Tensor

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Maps 1×C×H×W to the same shape, by a style 1×P."""
        scale, shift = self.parameters_of(style)
        return F.batch_norm(x, self.mean, self.variance, scale[0], shift[0], eps=self.eps)


@dataclass
class Section:
    """Consecutive layers of a network that are run band by band.

    Attributes:
        layers: The layers, with fixed norms.
        style: The style, 1×P.
        read: Returns rows ``top`` to ``bottom`` of their input, ``bottom`` excluded: 1×C×h×W.
        height: Rows of the input.
        rows: Rows of a band.
        margin: Rows that are added above and below, so that the band's output is exact.
        autocast: Context in which the layers run.
        proceed: Called before each band.
    """

    layers: nn.Module
    style: Tensor
    read: Callable[[int, int], Tensor]
    height: int
    rows: int
    margin: int
    autocast: torch.autocast
    proceed: Callable[[], None]

    def outputs(self) -> Iterator[tuple[int, Tensor]]:
        """Yields the first row of each band and the layers' output for it."""
        return self.run(partial(self.layers, style=self.style))

    def fix_statistics(self) -> None:
        """Sets each norm layer, in turn, to the statistics of its input over the whole image."""
        for norm in (each for each in self.layers.modules() if isinstance(each, FixedNorm)):
            moments = Moments()
            for _, inputs in self.run(partial(self.input_of, norm)):
                moments.add(inputs)
            norm.mean, norm.variance = (each.float().to(self.style.device) for each in (moments.mean, moments.variance))

    def input_of(self, norm: FixedNorm, x: Tensor) -> Tensor:
        """The input of a norm layer when the layers run on ``x``."""

        def stop(module: nn.Module, arguments: tuple[Tensor, Tensor]) -> None:
            raise Reached(arguments[0])

        hook = norm.register_forward_pre_hook(stop)
        try:
            self.layers(x, self.style)
        except Reached as reached:
            return reached.x
        finally:
            hook.remove()
        raise ValueError("the norm is not among the layers")

    def run(self, function: Callable[[Tensor], Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Yields the first row of each band and a function's output for it, which may have another number of rows."""
        for top in range(0, self.height, self.rows):
            self.proceed()
            bottom = min(top + self.rows, self.height)
            above, below = min(self.margin, top), min(self.margin, self.height - bottom)
            inputs = self.read(top - above, bottom + below)
            with self.autocast:
                outputs = function(inputs)
            height = bottom + below - top + above
            first, last = (outputs.shape[2] * place // height for place in (above, height - below))
            yield top, outputs[..., first:last, :]


class Moments:
    """Mean and variance of every channel over all added tensors, in double precision."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.deviations = torch.zeros((), dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """Adds N×C×H×W (Chan et al. 1983, updating formulae for variances)."""
        variance, mean = (each.double().cpu() for each in torch.var_mean(x.float(), dim=(0, 2, 3), correction=0))
        count = x.numel() // x.shape[1]
        total, step = self.count + count, mean - self.mean
        self.deviations = self.deviations + count * variance + step**2 * (self.count * count / total)
        self.mean = self.mean + step * (count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        """The biased variance, as instance norm uses it."""
        return self.deviations / self.count


class Reached(Exception):
    """Stops a forward pass at a layer; ``x`` is the layer's input."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x


def replace_rows(features: Tensor, outputs: Iterator[tuple[int, Tensor]]) -> None:
    """Overwrites features with new bands; each after the next is computed, whose margin needs the old rows."""
    waiting: tuple[int, Tensor] | None = None
    for output in outputs:
        if waiting:
            write_rows(features, *waiting)
        waiting = output
    if waiting:
        write_rows(features, *waiting)


def write_rows(features: Tensor, top: int, outputs: Tensor) -> None:
    """Overwrites the rows from ``top``."""
    features[..., top : top + outputs.shape[2], :] = outputs


def read_rows(image: Tensor, top: int, bottom: int, width: int, device: torch.device) -> Tensor:
    """Rows of an image as floats; its bottom and right edges are repeated, as the network pads."""
    rows = torch.arange(top, bottom, device=image.device).clamp_max(image.shape[2] - 1)
    columns = torch.arange(width, device=image.device).clamp_max(image.shape[3] - 1)
    return to_float(image[..., rows[:, None], columns], device)
