"""Measures of typical artefacts: grids in flat areas, and border artefacts."""

from collections.abc import Callable, Sequence
from statistics import geometric_mean

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop

SIDE = 256  # pixels; of the images measured
DIRECTIONS = ((1, 1), (0, 1), (1, 0), (2, 1), (1, -1), (1, 2))  # of gradients: steps down and right
PERIODS = (2, 4)  # pixels; periods of grids that the last and both upsamplings can leave
FRAME = 16  # pixels; width of the border
SURROUNDINGS = 64  # pixels; more than the radius of the receptive field of the convolutions
ROUNDING = 1 / 255**2 / 12  # variance of rounding to 8 bits; less than that is not visible


def grids(run: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """:func:`grid` of the output for grey with the faint noise of a photo, and for gradients from dark to light.

    Without noise, instance norm would amplify only the processor's rounding errors. A grid's strength depends on the
    gradient's direction, by a factor of up to ten, so the geometric mean over all :data:`DIRECTIONS` is taken.
    """
    noise = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) / 255
    found = {"grey": grid(run((0.5 + noise)[None])[0])}
    return found | {"gradients": geometric_mean(grid(run(gradient(*each)[None])[0]) for each in DIRECTIONS)}


def gradient(down: int, right: int) -> Tensor:
    """Grey, 3×256×256, that rises from 0.2 to 0.8 in a direction."""
    ramp = torch.linspace(0, 1, SIDE)
    rise = down * ramp[:, None] + right * ramp
    return (0.2 + 0.6 * (rise - rise.min()) / (rise.max() - rise.min())).expand(3, -1, -1)


def grid(image: Tensor) -> float:
    """Relative energy of a grid in an image, 3×H×W in [0, 1] with sides that are multiples of 4.

    The energy at the frequencies of grids from upsampling by 2 and 4, which are 1/2 and 1/4 cycles per pixel in height,
    width or both, relative to that of neighbouring frequencies; the largest of these. A value near 1 means no grid.
    """
    height, width = image.shape[1:]
    window = torch.hann_window(height, periodic=True)[:, None] * torch.hann_window(width, periodic=True)
    spectrum = torch.fft.fft2((image.cpu() - image.cpu().mean(dim=(1, 2), keepdim=True)) * window).abs().square()
    energy = spectrum.mean(dim=0) + ROUNDING * window.square().sum()
    down, right = ([side * k // max(PERIODS) for k in range(max(PERIODS))] for side in (height, width))
    return max(prominence(energy, y, x) for y in down for x in right if (y, x) != (0, 0))


def prominence(energy: Tensor, y: int, x: int) -> float:
    """Energy at a frequency, which the window spreads over its neighbours, relative to the ring around it."""
    height, width = energy.shape
    around = energy.roll((height // 2 - y, width // 2 - x), (0, 1))

    def square(reach: int) -> Tensor:
        return around[height // 2 - reach : height // 2 + reach + 1, width // 2 - reach : width // 2 + reach + 1]

    ring = square(8).sum() - square(2).sum()
    return float(square(1).mean() / (ring / (square(8).numel() - square(2).numel())))


def borders(stylize: Callable[[Tensor], Tensor], photos: Sequence[Tensor]) -> dict[str, float]:
    """How much a result changes near the photo's border because the network lacks context there.

    Parts of photos are stylized alone, and with 64 px of their surroundings. The result is the root mean square of the
    difference, relative to the result's contrast: in the outer 16 px, which lacked context, and in the central quarter,
    which differs only by the norms' statistics.

    Args:
        stylize: Runs a style network, without grain: that begins at a photo's corner, so a part would get another.
        photos: 1×3×H×W each, in [0, 1], with H and W of at least 384.
    """
    changes, contrasts = [], []
    for photo in photos:
        wide = center_crop(photo, [SIDE + 2 * SURROUNDINGS] * 2)
        surrounded = center_crop(stylize(wide), [SIDE, SIDE])
        changes.append((stylize(center_crop(wide, [SIDE, SIDE])) - surrounded).square().mean(dim=(0, 1)))
        contrasts.append(surrounded.var(dim=(2, 3)).mean())
    change, contrast = torch.stack(changes).mean(dim=0), torch.stack(contrasts).mean()
    frame = torch.ones(SIDE, SIDE, dtype=torch.bool)
    frame[FRAME:-FRAME, FRAME:-FRAME] = False
    parts = {"border": change[frame], "centre": center_crop(change, [SIDE // 2, SIDE // 2])}
    return {name: float((part.mean() / contrast).sqrt()) for name, part in parts.items()}
