"""A weave, the same fine strokes over and over as no painter makes them: how much of it a picture has."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .losses import wide
from .spectra import energy, waves

WINDOW = 32  # pixels; side of the parts whose spectra are computed
STEP = 16  # pixels from one to the next
REGION = 5  # windows in a row, 96 px: the mean over so many tells a pattern that repeats from a stroke
BETWEEN = 2  # windows from one region to the next
COARSEST = 7  # pixels; of longer periods are strokes and outlines
OUTLINES = 12  # pixels; longer periods are too strong to compare with
BRIGHTNESS = 0.299, 0.587, 0.114  # of red, green and blue
INVISIBLE = 1 / 3  # variance of noise, of levels of 255: twice the deviation of rounding to whole levels
ALLOWED = 1.0  # by how much a frequency may stand out, as a logarithm; in most paintings none does by more


def weave(images: Tensor) -> Tensor:
    """How far fine frequencies stand out of the frequencies around them, beyond what is usual in paintings.

    For every region of an image, and every frequency of a period of at most 7 px, the logarithm of its energy relative
    to that around it; what exceeds 1 is averaged. It is a measure of how evenly strokes repeat, not of how strong they
    are: 0 for noise, up to 0.03 for paintings of brush strokes at 256 px.

    Args:
        images: N×3×H×W in [0, 1], with sides of at least 32. In sides of less than 96 single strokes count too.
    """
    with torch.autocast(images.device.type, enabled=False):
        return excess(energies(255 * wide(images)))


def excess(spectra: Tensor) -> Tensor:
    """By how much the logarithms of energies K×1×32×32 at fine frequencies exceed what is allowed, the mean."""
    spectra = spectra + INVISIBLE * (3 / 8) ** 2 * WINDOW**2  # of the noise, through the window
    steps = torch.fft.fftfreq(WINDOW, device=spectra.device)
    frequency = torch.hypot(steps[:, None], steps)
    fine, comparable = ((frequency > 1 / period).to(spectra)[None, None] for period in (COARSEST, OUTLINES))
    distance = torch.arange(-4, 5, device=spectra.device).abs()
    distance = torch.maximum(distance[:, None], distance)
    own, around = (part.to(spectra)[None, None] for part in (distance <= 1, distance > 2))
    near = around_each(spectra.log() * comparable, around) / around_each(comparable, around)
    prominence = (around_each(spectra, own) / own.sum()).log() - near
    return ((prominence - ALLOWED).relu() * fine).sum() / (fine.sum() * len(spectra))


def around_each(spectra: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums around each frequency of spectra K×1×32×32, which repeat."""
    return F.conv2d(F.pad(spectra, (weights.shape[-1] // 2,) * 4, mode="circular"), weights)


def energies(pixels: Tensor) -> Tensor:
    """Energy of brightness of pixels N×3×H×W at each frequency: K×1×32×32, the means over the windows of K regions."""
    brightness = (pixels * pixels.new_tensor(BRIGHTNESS)[:, None, None]).sum(dim=1)
    windows = brightness.unfold(1, WINDOW, STEP).unfold(2, WINDOW, STEP)
    windows = windows - windows.mean(dim=(-2, -1), keepdim=True)
    each = waves(torch.arange(WINDOW, device=pixels.device), WINDOW, pixels)
    spectra = energy(windows, each, each).flatten(3).permute(0, 3, 1, 2)
    rows, columns = spectra.shape[2:]
    spectra = F.avg_pool2d(spectra, (min(REGION, rows), min(REGION, columns)), stride=BETWEEN)
    return spectra.permute(0, 2, 3, 1).reshape(-1, 1, WINDOW, WINDOW)
