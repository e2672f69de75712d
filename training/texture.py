"""The texture loss: how strong fine detail is, at each scale and in each direction, wherever its lines lie."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .losses import wide

BLOCK = 8  # pixels; side of the blocks that are transformed
STEP = 2  # pixels from one block to the next
AROUND = 4  # steps; side of the square of blocks whose strength is one value


class TextureLoss(nn.Module):
    """Difference between the strengths of texture in images and in their targets, times a weight.

    Where a reduction has lost a hair's place, no network can find it. The pixel loss asks for the mean of all places,
    which is smooth; features welcome fine texture, even a weave that no photo has. This loss asks for as much texture
    as the target has, of the same scale and direction, but not for the place of each line.

    Strengths are root mean squares of the coefficients of a discrete cosine transform of blocks, all but their means,
    of the mean of the channels, with pixels from 0 to 255, over a square of blocks that covers 14 × 14 pixels. The loss
    is the mean squared difference of strengths.

    Args:
        weight: Factor of the loss.
    """

    basis: Tensor

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.register_buffer("basis", cosine_basis(BLOCK)[1:, None], persistent=False)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Compares images in [0, 1] with their targets, N×3×H×W, of at least 14×14; the targets are constants."""
        with torch.no_grad():
            expected = self.strengths(targets)
        return self.weight * (self.strengths(images) - expected).square().mean()

    def strengths(self, images: Tensor) -> Tensor:
        """Strength of each of 63 coefficients, around places that are 4 pixels apart: N×63×H/4×W/4, about."""
        grey = 255 * wide(images).mean(dim=1, keepdim=True)
        with torch.autocast(images.device.type, enabled=False):
            energies = F.conv2d(grey, self.basis.to(grey), stride=STEP).square()
        return (F.avg_pool2d(energies, AROUND, stride=AROUND // 2) + 1).sqrt()  # at 0 the slope of a root has no bounds


def cosine_basis(size: int) -> Tensor:
    """The orthonormal basis of the two-dimensional discrete cosine transform (DCT-II), size²×size×size; means first."""
    k = torch.arange(size)
    waves = torch.cos(math.pi / size * (k + 0.5) * k[:, None]) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return torch.einsum("uy,vx->uvyx", waves, waves).flatten(0, 1)
