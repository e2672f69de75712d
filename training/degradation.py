"""Reduces photos to low-resolution inputs, as in section 4.2 of Johnson et al. 2016."""

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from perceptual.inference.resampling import resize_bicubic

SIGMA = 1.0  # standard deviation of the paper's blur, in pixels of the target
REACH = 4  # standard deviations after which the blur is cut off


def degrade(targets: Tensor, scale: int, degradation: str) -> Tensor:
    """Reduces photos to the inputs of a super-resolution network.

    Args:
        targets: Float RGB in [0, 1], N×3×H×W; ``scale`` divides H and W, both at least 5.
        scale: How many times smaller the result is.
        degradation: ``paper`` blurs with a Gaussian of σ = 1.0 px before it reduces bicubically; ``bicubic``, usual
            in later papers, only reduces.

    Returns:
        N×3×(H/scale)×(W/scale) in [0, 1], quantized to 256 levels as in an image file.

    Raises:
        ValueError: H or W is not divisible.
    """
    with torch.autocast(targets.device.type, enabled=False):
        blurred = gaussian_blur(targets, [2 * REACH + 1] * 2, [SIGMA] * 2) if degradation == "paper" else targets
        reduced = resize_bicubic(blurred, 1 / scale)
    return (reduced * 255).round().clamp(0, 255) / 255
