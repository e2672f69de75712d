"""Reduces photos to low-resolution inputs: as in section 4.2 of Johnson et al. 2016, or as users' photos were."""

import io
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur, pil_to_tensor, to_pil_image

from perceptual.inference.resampling import mirror, resize_bicubic

from . import parallel

SIGMA = 1.0  # standard deviation of the paper's blur, in pixels of the target
STRONGEST = 1.2  # standard deviation of the strongest blur of mixed degradations
REACH = 4  # pixels of the target, beyond which a blur is cut off
COMPRESSED = 1 / 3  # share of mixed degradations that end in JPEG
QUALITIES = 60, 100  # lowest and highest quality of JPEG


class Draws(NamedTuple):
    """What mixed degradations do to each of N photos."""

    sigmas: Tensor  # N standard deviations of the blur, in pixels of the target
    filters: Tensor  # N indices of the filter of the reduction
    qualities: list[int | None]  # of JPEG; None is no compression


def degrade(targets: Tensor, scale: int, degradation: str, draws: Draws | None = None) -> Tensor:
    """Reduces photos to the inputs of a super-resolution network.

    Args:
        targets: Float RGB in [0, 1], N×3×H×W; ``scale`` divides H and W, both at least 5.
        scale: How many times smaller the result is.
        degradation: ``mixed`` reduces each photo in its own way, see :func:`draw`; ``paper`` blurs with a Gaussian of
            σ = 1.0 px before it reduces bicubically; ``bicubic``, usual in later papers, only reduces.
        draws: For ``mixed``; new ones by default.

    Returns:
        N×3×(H/scale)×(W/scale) in [0, 1], quantized to 256 levels as in an image file.

    Raises:
        ValueError: H or W is not divisible.
    """
    with torch.autocast(targets.device.type, enabled=False):
        if degradation == "mixed":
            return mixed(targets, scale, draws or draw(len(targets)))
        blurred = gaussian_blur(targets, [2 * REACH + 1] * 2, [SIGMA] * 2) if degradation == "paper" else targets
        return quantized(resize_bicubic(blurred, 1 / scale)) / 255


@torch.compiler.disable  # numbers of it are read, for the codec
def draw(count: int) -> Draws:
    """Draws from PyTorch's random numbers in which way each photo is reduced, so that a network meets what users have.

    A Gaussian blur, which a quarter of the photos is spared, the filter, and for a third of the photos a compression as
    JPEG. In a distributed training, ``count`` photos are this process's part of a batch.
    """
    whole = count * parallel.world_size()
    sigmas = STRONGEST * torch.rand(whole) * (torch.rand(whole) < 3 / 4)
    filters = torch.randint(4, (whole,))
    low, high = QUALITIES
    compressed = (torch.rand(whole) < COMPRESSED).tolist()
    qualities = [int(torch.randint(low, high + 1, ())) if each else None for each in compressed]
    return Draws(parallel.part(sigmas), parallel.part(filters), parallel.part(qualities))


@torch.compiler.disable  # the codec cannot be compiled
def mixed(targets: Tensor, scale: int, draws: Draws) -> Tensor:
    """Reduces each photo in its own way. Arguments and result as for :func:`degrade`."""
    blurred = blur_each(targets, draws.sigmas)
    bicubic = resize_bicubic(blurred, 1 / scale)
    size = [side // scale for side in targets.shape[2:]]
    bilinear = F.interpolate(blurred, size, mode="bilinear", antialias=True)
    forms = torch.stack([bicubic, bicubic, bilinear, F.avg_pool2d(blurred, scale)])  # half of the photos are bicubic
    reduced = quantized(forms[draws.filters, torch.arange(len(targets))])
    for i, quality in enumerate(draws.qualities):
        if quality is not None:
            reduced[i] = through_jpeg(reduced[i].byte(), quality).to(reduced)
    return reduced / 255


def blur_each(images: Tensor, sigmas: Tensor) -> Tensor:
    """Blurs each image of N×C×H×W with a Gaussian of its own standard deviation, N numbers in pixels from 0."""
    n, c, h, w = images.shape
    places = torch.arange(-REACH, REACH + 1.0)
    weights = torch.exp(-places.square() / (2 * sigmas.clamp(min=1e-3).square()[:, None]))
    weights = (weights / weights.sum(dim=1, keepdim=True)).repeat_interleave(c, dim=0).to(images)
    x = mirror(images, REACH).reshape(1, n * c, h + 2 * REACH, w + 2 * REACH)
    x = F.conv2d(x, weights[:, None, :, None], groups=n * c)
    return F.conv2d(x, weights[:, None, None, :], groups=n * c).view(n, c, h, w)


def through_jpeg(image: Tensor, quality: int) -> Tensor:
    """An image, uint8 3×H×W, as it is read from a JPEG file of that quality."""
    buffer = io.BytesIO()
    to_pil_image(image.cpu()).save(buffer, "JPEG", quality=quality)
    return pil_to_tensor(Image.open(buffer))


def quantized(images: Tensor) -> Tensor:
    """Images in [0, 1] as whole numbers from 0 to 255."""
    return (images * 255).round().clamp(0, 255)
