"""Loads images as tensors of the size at which losses compare them."""

from pathlib import Path

from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, resize

from perceptual.inference import images


def load_image(path: Path, size: int) -> Tensor:
    """An image with its shorter side resized to ``size`` pixels, on white, 1×3×H×W in [0, 1].

    Raises:
        InputError: It cannot be read; the message names it.
    """
    return resize(images.load(path).opaque()[None], [size], antialias=True).float() / 255


def load_square(path: Path, size: int) -> Tensor:
    """The middle of an image, on white, 1×3×``size``×``size`` in [0, 1]. Raises as :func:`load_image`."""
    photo = images.load(path).opaque()
    middle = center_crop(photo, [min(photo.shape[1:])])  # cropped first: a thin image, resized, could exceed the memory
    return resize(middle[None], [size], antialias=True).float() / 255
