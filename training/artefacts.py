"""Measures of typical artefacts: grids in flat areas, and border artefacts."""

from collections.abc import Callable, Sequence
from statistics import geometric_mean

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop

from .grids import prominences

SIDE = 256  # pixels; of the images measured
DIRECTIONS = ((1, 1), (0, 1), (1, 0), (2, 1), (1, -1), (1, 2))  # of gradients: steps down and right
FRAME = 16  # pixels; width of the border
SURROUNDINGS = 64  # pixels; more than the radius of the receptive field of the convolutions


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
    """The largest of the :func:`.prominences` of an image, 3×H×W in [0, 1] with sides that are multiples of 4."""
    return float(prominences(image[None].cpu()).max())


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
