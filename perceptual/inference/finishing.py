"""Steps after the network: ``strength`` and ``keep_colors``, histogram matching, alpha's enlargement, and bytes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..options import StyleOptions
from . import histogram
from .networks.base import luma
from .resampling import resize_bicubic


def steer(originals: Tensor, styled: Tensor, options: Sequence[StyleOptions]) -> Tensor:
    """Applies ``keep_colors`` and ``strength`` to stylized images, N×3×H×W in [0, 1], and rounds them to bytes.

    Args:
        originals: The photos.
        styled: The network's outputs.
        options: The options for each photo.
    """
    return torch.stack([steer_one(*each) for each in zip(originals, styled, options, strict=True)])


def steer_one(original: Tensor, styled: Tensor, options: StyleOptions) -> Tensor:
    """:func:`steer` for one image, 3×H×W."""
    if options.keep_colors:
        # In YCbCr the chroma planes are differences to the luma, so to replace the luma is to add its difference.
        styled = original + luma((styled - original)[None])[0]
    return to_bytes(torch.lerp(original, styled.clamp(0, 1), options.strength))


def match_channels(output: Tensor, original: Tensor, *, low_frequencies: bool) -> Tensor:
    """Histogram matching of bytes, 3×H×W, channel by channel, as it needs several times their memory."""
    match = histogram.match_low_frequencies if low_frequencies else histogram.match
    matched = (
        match(channel[None, None], reference[None, None]) for channel, reference in zip(output, original, strict=True)
    )
    return torch.stack([channel[0, 0] for channel in matched])


def enlarged(alpha: Tensor | None, scale: int) -> Tensor | None:
    """Opacity, uint8 1×H×W, ``scale`` times larger."""
    return None if alpha is None else to_bytes(resize_bicubic(alpha[None].float() / 255, scale)[0])


def to_bytes(images: Tensor) -> Tensor:
    """Rounds images in [0, 1] to bytes."""
    return (images * 255).round_().clamp_(0, 255).to(torch.uint8)
