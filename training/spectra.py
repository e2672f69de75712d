"""Spectra of images by matrices of cosines and sines, as torch.compile leaves complex numbers out."""

import math

import torch
from torch import Tensor

Waves = tuple[Tensor, Tensor]


def waves(steps: Tensor, side: int, like: Tensor) -> Waves:
    """Cosines and sines of K frequencies, in cycles per ``side`` pixels, through a Hann window: K×side each."""
    places = torch.arange(side, device=like.device)
    angles = (steps[:, None] * places % side).to(like) * (2 * math.pi / side)
    window = torch.hann_window(side, dtype=like.dtype, device=like.device)
    return window * angles.cos(), window * angles.sin()


def energy(pixels: Tensor, down: Waves, right: Waves) -> Tensor:
    """Energy of pixels …×H×W at K frequencies down, with H places, and L to the right, with W: …×K×L."""
    (cosines, sines), (across, into) = down, right
    even, odd = cosines @ pixels, sines @ pixels
    real, imaginary = even @ across.T - odd @ into.T, even @ into.T + odd @ across.T
    return real.square() + imaginary.square()
