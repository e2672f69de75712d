"""Grain: smooth noise that a photo gets before it is stylized, from which flat areas get strokes.

Where a photo is flat, nothing tells one place from the next. There a network can only repeat one small pattern, a weave
or rows of dots. A network that was trained with grain makes strokes of it, each different from the others. Ulyanov et
al. 2016 (https://arxiv.org/abs/1603.03417) give their generators noise too.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

STRONGEST = 16  # levels of 255; standard deviation of grain of strength 1, in each channel
# Of each Gaussian that smooths it: standard deviation in pixels, and weight. The coarse grain becomes strokes; the fine
# one is of the scale of the small pattern, and keeps it from being regular.
SCALES = (4.0, 2), (1.5, 1)
PERIOD = 512  # pixels; after which the grain of large photos repeats


def with_grain(images: Tensor, strengths: Sequence[float]) -> Tensor:
    """Images with grain, the same in every image, from its upper left corner.

    Args:
        images: N×3×H×W, floats in [0, 1] or bytes.
        strengths: For each image, from 0, without grain, to 1.

    Returns:
        Images of the same type.
    """
    if not any(strengths):
        return images
    result = images.clone()
    grain = torch.cat([levels(strength) for strength in strengths]).to(images.device)
    for strip in result.split(PERIOD, dim=2):
        for tile in strip.split(PERIOD, dim=3):
            part = grain[..., : tile.shape[2], : tile.shape[3]]
            if tile.is_floating_point():
                tile.add_(part / 255).clamp_(0, 1)
            else:
                tile.copy_((tile.to(torch.int16) + part).clamp_(0, 255))
    return result


@lru_cache(maxsize=4)  # 0.8 MB each
def levels(strength: float) -> Tensor:
    """Grain of a strength in whole levels of 255, so that bytes and floats get the same: 1×3×512×512, int8."""
    return (strength * STRONGEST * pattern()).round().clamp(-127, 127).to(torch.int8)


@lru_cache
def pattern() -> Tensor:
    """The grain of one period, 1×3×512×512, of a standard deviation of 1."""
    return noise(1, PERIOD, PERIOD, torch.Generator().manual_seed(0))


def noise(
    count: int, height: int, width: int, generator: torch.Generator | None = None, device: torch.device | None = None
) -> Tensor:
    """New grain of a standard deviation of 1, N×3×H×W, which continues at its opposite edge."""
    total = torch.zeros(3 * count, 1, height, width, device=device)
    for sigma, weight in SCALES:
        white = torch.randn(total.shape, generator=generator, device=device)
        total += weight * smoothed(white, sigma)
    return total.view(count, 3, height, width) / math.hypot(*(weight for _, weight in SCALES))


def smoothed(white: Tensor, sigma: float) -> Tensor:
    """White noise N×1×H×W after a Gaussian filter, with the variance that it had."""
    radius = round(3 * sigma)
    places = torch.arange(-radius, radius + 1, dtype=white.dtype, device=white.device)
    kernel = torch.exp(-(places / sigma).square() / 2)
    kernel = kernel / kernel.square().sum().sqrt()
    padded = F.pad(white, [radius] * 4, mode="circular")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
