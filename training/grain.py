"""Grain in training: of every strength up to twice that with which the finished network's photos are stylized."""

import torch
from torch import Tensor

from perceptual.inference.grain import STRONGEST, noise

from . import parallel


@torch.no_grad()
def randomly_grained(photos: Tensor, mean: float) -> Tensor:
    """Photos N×3×H×W in [0, 1] with new grain, each of a random strength from 0 to twice the mean."""
    if not mean:
        return photos
    count, device = len(photos) * parallel.world_size(), photos.device
    strengths = parallel.part(2 * mean * torch.rand(count, 1, 1, 1, device=device))
    with torch.autocast(device.type, enabled=False):
        grain = parallel.part(noise(count, photos.shape[2], photos.shape[3], device=device))
    return (photos + STRONGEST / 255 * strengths * grain).clamp(0, 1)
