"""Bicubic resampling as in MATLAB's ``imresize``, the convention of papers on super-resolution."""

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_bicubic(images: Tensor, factor: float) -> Tensor:
    """Enlarges or reduces images; when reducing, the kernel is widened against aliasing.

    PyTorch's antialiased bicubic has MATLAB's kernel (Keys 1981, a = −0.5) but cuts it off at the border, where MATLAB
    mirrors the image including its edge. So the image is mirrored here first.

    Args:
        images: Float, N×C×H×W of any H and W of at least 1.
        factor: A whole number or, to reduce, the reciprocal of one that divides H and W.

    Returns:
        N×C×H′×W′ in the same units. Overshoots, as bicubic does, may leave [0, 1].

    Raises:
        ValueError: A side is not divisible.
    """
    divisor = max(1, round(1 / factor))
    if any(side % divisor for side in images.shape[-2:]):
        raise ValueError(f"{images.shape[-1]}×{images.shape[-2]} pixels cannot be divided by {divisor}")
    margin = 2 * divisor  # the kernel's reach
    padded = mirror(images, margin)
    size = [round(side * factor) for side in padded.shape[-2:]]
    resized = F.interpolate(padded, size, mode="bicubic", antialias=True)
    return F.pad(resized, [-round(margin * factor)] * 4)


def mirror(images: Tensor, margin: int) -> Tensor:
    """Mirrors images N×C×H×W at every border, edge pixels included, and again where ``margin`` exceeds the image."""
    rows, columns = (mirrored_places(side, margin, images.device) for side in images.shape[-2:])
    return images[..., rows[:, None], columns]


def mirrored_places(side: int, margin: int, device: torch.device) -> Tensor:
    """Where the pixels of a mirrored row come from: 1 0 0 1 2 2 1 for a side of 3 and a margin of 2."""
    places = torch.arange(-margin, side + margin, device=device) % (2 * side)
    return torch.minimum(places, 2 * side - 1 - places)
