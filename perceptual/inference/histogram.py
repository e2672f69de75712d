"""Histogram matching: gives an image the colour distribution of another."""

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 256  # of a channel, as in the files that images come from and go to
CHUNK = 2**20  # pixels of a channel in one step; their levels as indices take much more memory than the pixels


def match(images: Tensor, references: Tensor) -> Tensor:
    """Gives every channel of every image the cumulative histogram of its reference.

    Johnson et al. 2016 (section 4.2) match the outputs of super-resolution to their low-resolution inputs.

    Args:
        images: Float in [0, 1] or bytes, N×C×H×W.
        references: The same, N×C×H′×W′ of any size, on the same device.

    Returns:
        N×C×H×W of the images' type. Multiples of 1/255 become what ``skimage.exposure.match_histograms`` gives; values
        between them are interpolated, and bytes are rounded.
    """
    table = lookup_table(quantiles(images), quantiles(references))
    pixels = images.flatten(2)
    matched = torch.empty_like(pixels)
    for source, target in zip(pixels.split(CHUNK, dim=2), matched.split(CHUNK, dim=2), strict=True):
        target.copy_(look_up(table, source))
    return matched.view_as(images)


def match_low_frequencies(images: Tensor, references: Tensor) -> Tensor:
    """As :func:`match`, but of the images reduced to the references' size, and adds the enlarged difference.

    This shifts colours and keeps detail, which a small reference does not have.

    Args:
        images: As there; H and W are the same multiple of the references'.
        references: As there.
    """
    white = 255 if images.dtype == torch.uint8 else 1
    n, c, height, width = references.shape
    scale = images.shape[2] // height
    low = images.reshape(n, c, height, scale, width, scale).mean((3, 5), dtype=torch.float32) / white
    shift = F.pad(match(low, references / white).sub_(low).mul_(white), [1] * 4, mode="replicate")
    matched = torch.empty_like(images)
    rows = max(1, CHUNK // (scale**2 * width))
    for top in range(0, height, rows):  # in parts, as floats take four times the memory of bytes
        part = F.interpolate(shift[:, :, top : top + rows + 2], scale_factor=scale, mode="bilinear")
        place = slice(scale * top, scale * (top + rows))
        part = part[..., scale:-scale, scale:-scale].add_(images[:, :, place]).clamp_(0, white)
        matched[:, :, place] = part.round_() if white == 255 else part
    return matched


def look_up(table: Tensor, pixels: Tensor) -> Tensor:
    """Maps pixels, N×C×P, by a table of levels, N×C×256, interpolated linearly between levels."""
    if pixels.dtype == torch.uint8:
        return table.round().to(torch.uint8).gather(2, pixels.long())
    table = table.to(pixels.dtype) / (LEVELS - 1)
    levels = pixels.clamp(0, 1) * (LEVELS - 1)
    below = levels.floor()
    place = below.long()
    low, high = table.gather(2, place), table.gather(2, (place + 1).clamp_max(LEVELS - 1))
    return torch.lerp(low, high, levels - below)


def quantiles(images: Tensor) -> Tensor:
    """Share of pixels that are no brighter than each of 256 levels: float64, N×C×256."""
    n, c = images.shape[:2]
    pixels = images.flatten(2)
    channel = torch.arange(n * c, device=images.device).view(n, c, 1)
    counts = torch.zeros(n * c * LEVELS, dtype=torch.long, device=images.device)
    for each in pixels.split(CHUNK, dim=2):
        levels = each if each.dtype == torch.uint8 else (each.clamp(0, 1) * (LEVELS - 1)).round().long()
        counts += torch.bincount((channel * LEVELS + levels).flatten(), minlength=n * c * LEVELS)
    return counts.view(n, c, LEVELS).cumsum(2).double() / pixels.shape[2]


def lookup_table(source: Tensor, target: Tensor) -> Tensor:
    """The level, 0 to 255, that each level of a source becomes: where the target has the same quantile.

    Args:
        source: Quantiles, N×C×256.
        target: Quantiles, N×C×256.

    Returns:
        N×C×256, interpolated linearly between the levels that the target has.
    """
    first = target.where(target > 0, 2.0).amin(2, keepdim=True)  # the quantile of the target's darkest level
    quantile = source.maximum(first)
    # Skips levels that no pixel of the target has: their quantile is that of the level before.
    upper = torch.searchsorted(target, quantile)
    reached = target.gather(2, upper)
    before = target.gather(2, (upper - 1).clamp_min(0)).where(upper > 0, 0)
    lower = torch.searchsorted(target, before).where(before > 0, upper)
    fraction = ((quantile - before) / (reached - before)).where(before > 0, 1)
    return torch.lerp(lower.double(), upper.double(), fraction)
