"""The steadiness loss, against pictures that depend on where the photo lies on the network's grid."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from . import parallel
from .losses import wide
from .task import randomly_cropped

NOISE = 4 / 255  # standard deviation of faint noise, as a photo has
EDGE = 8  # pixels at each edge that are not compared, as the shifted photo has another padding


class SteadinessLoss(nn.Module):
    """How much a picture changes when its photo is shifted a little, times a weight.

    A network that reduces its input by strides, or that ends in a pixel shuffle, has a grid: it may draw differently
    where the same detail meets another place of the grid. In a video that is flicker, in an enlarged photo a weave. The
    loss is the mean square of the difference, with pixels from 0 to 255, between the picture of the shifted photo and
    the picture, shifted alike. What is drawn after the photo alone has no loss.

    Args:
        weight: Factor of the loss; with 0 nothing is measured.
        period: Period of the grid in pixels of the picture, which is the largest shift.
        noise: Standard deviation of noise that the shifted photo gets too, as the next frame of a video has.
    """

    def __init__(self, weight: float, period: int, noise: float = 0.0) -> None:
        super().__init__()
        self.weight = weight
        self.period = period
        self.noise = noise

    def forward(self, run: Callable[[Tensor], Tensor], photos: Tensor, pictures: Tensor) -> dict[str, Tensor]:
        """The loss as ``steadiness``; nothing if the weight is 0.

        Args:
            run: Makes pictures of photos.
            photos: N×3×H×W in [0, 1], with sides of at least 32.
            pictures: What it makes of them, N×3×H×W.
        """
        if not self.weight:
            return {}
        shifted, expected = randomly_cropped(self.period + 1, photos, pictures)
        found = run(shifted + self.noise * noise_for(shifted) if self.noise else shifted)
        change = 255 * (wide(found) - wide(expected))[..., EDGE:-EDGE, EDGE:-EDGE]
        return {"steadiness": self.weight * change.square().mean()}


def noise_for(photos: Tensor) -> Tensor:
    """Normal noise for this process's photos N×3×H×W, of a standard deviation of 1, drawn for the whole batch."""
    count = len(photos) * parallel.world_size()
    return parallel.part(torch.randn(count, *photos.shape[1:], dtype=photos.dtype, device=photos.device))
