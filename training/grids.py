"""Grids that upsampling leaves: a measure, and a loss against them and against a weave."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import parallel
from .grain import randomly_grained
from .losses import wide
from .spectra import Waves, energy, waves
from .steadiness import noise_for
from .weaves import weave

PERIOD = 4  # pixels; of the network's coarsest features, so grids have periods of 4 and 2
REACH = 8  # steps of frequency that are compared around that of a grid, if the image is large enough
WINDOW = 32  # pixels; side of the parts of a picture in which the loss looks for grids
PLAIN = 192  # pixels; side of the plain images for which the loss has pictures drawn
NOISE = 1 / 255  # standard deviation of their noise, without which instance norm would amplify rounding errors alone
WEAVE = 10  # weight of the weave, relative to that of grids: it has smaller figures
ROUNDING = 1 / 12  # variance of rounding to a whole level; less than that is not visible


class GridProminenceLoss(nn.Module):
    """How much a grid, or a weave, stands out of what a style network draws, times a weight.

    A network that upsamples can draw one small pattern everywhere: rows of dots, or a weave. It is faint beside
    strokes, so a loss on its energy would weaken strokes first. This loss is the mean logarithm of :func:`prominences`,
    where it is above 0, and :func:`.weave`: irregular strokes cost little, however strong. Both are measured in the
    pictures, and in pictures of plain images (:func:`plain`), as a pattern is most visible where a photo is flat. The
    windows for grids lie side by side; what is left at the right and below is not measured.

    Args:
        weight: Factor of the loss; with 0 nothing is measured.
        grain: Mean strength of the grain that the plain images get, as the photos do.
    """

    def __init__(self, weight: float, grain: float) -> None:
        super().__init__()
        self.weight = weight
        self.grain = grain

    def forward(self, run: Callable[[Tensor], Tensor], photos: Tensor, pictures: Tensor) -> dict[str, Tensor]:
        """The losses as ``grids`` and ``weave``; nothing if the weight is 0.

        Args:
            run: Makes pictures of photos.
            photos: N×3×H×W in [0, 1], with sides of at least 32.
            pictures: What it makes of them, N×3×H×W.
        """
        if not self.weight:
            return {}
        images = plain(photos)
        images = images + NOISE * noise_for(images)
        drawn = run(randomly_grained(images, self.grain))
        windows = pictures.unfold(2, WINDOW, WINDOW).unfold(3, WINDOW, WINDOW).transpose(1, 3).flatten(0, 2)
        excess = [prominences(images).log().relu().mean() for images in (windows, drawn)]
        woven = [weave(images) for images in (pictures, drawn)]
        return {
            "grids": self.weight * torch.stack(excess).sum(),
            "weave": WEAVE * self.weight * torch.stack(woven).sum(),
        }


def plain(photos: Tensor) -> Tensor:
    """Smooth gradients between the colours at the corners of photos N×3×H×W, N×3×192×192.

    A random share of the gradient is taken, so some are nearly of one colour.
    """
    corners = photos[..., :: photos.shape[2] - 1, :: photos.shape[3] - 1]
    first = corners[..., :1, :1]
    share = parallel.part(torch.rand(len(photos) * parallel.world_size(), 1, 1, 1, device=photos.device))
    return F.interpolate(first + share * (corners - first), size=(PLAIN, PLAIN), mode="bilinear", align_corners=True)


def prominences(images: Tensor) -> Tensor:
    """Energy at each frequency of a grid, relative to that of the frequencies around it; near 1 without a grid.

    The frequencies are those of grids from upsampling by 2 and 4: 1/2 and 1/4 cycles per pixel in height, width or
    both. Energy is averaged over the channels. A Hann window spreads that of a grid over the next frequencies, which
    count as its own.

    Args:
        images: N×C×H×W in [0, 1], with sides that are multiples of 4, of at least 32.

    Returns:
        N×15.
    """
    height, width = images.shape[2:]
    reach = min(REACH, height // 8, width // 8)
    spectra = energies(images, reach) + ROUNDING * (3 / 8) ** 2 * height * width  # of rounding, through the window
    distance = (torch.arange(2 * reach + 1, device=images.device) - reach).abs()
    distance = torch.maximum(distance[:, None], distance)
    grid, around = ((spectra * part).sum(dim=(-2, -1)) / part.sum() for part in (distance <= 1, distance > 2))
    return (grid / around).flatten(1)[:, 1:]  # without the mean and what is near it


def energies(images: Tensor, reach: int) -> Tensor:
    """Energy at 0, 1/4, 1/2 and 3/4 cycles per pixel, and ``reach`` steps around: N×4×4×(2·reach+1)×(2·reach+1)."""
    with torch.autocast(images.device.type, enabled=False):
        pixels = 255 * wide(images)
        pixels = pixels - pixels.mean(dim=(2, 3), keepdim=True)
        down, right = (around_grids(side, reach, pixels) for side in images.shape[2:])
        found = energy(pixels, down, right).mean(dim=1)
    return found.unflatten(2, (PERIOD, -1)).unflatten(1, (PERIOD, -1)).transpose(2, 3)


def around_grids(side: int, reach: int, like: Tensor) -> Waves:
    """Waves of the frequencies of a grid and those around: 4·(2·reach+1)×side each."""
    steps = torch.arange(PERIOD, device=like.device)[:, None] * (side // PERIOD)
    return waves((steps + torch.arange(-reach, reach + 1, device=like.device)).flatten(), side, like)
