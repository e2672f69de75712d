"""Stylizes large photos at a size at which strokes are visible, then enlarges the result to the photo's size.

Strokes have a fixed size in pixels, from the training. On a photo of many megapixels they are so small that the result
looks like the photo in other colours, with fine noise. Also, above four megapixels a network runs in bands, which takes
several times as long per pixel; stylizing a smaller photo and enlarging it by super-resolution takes less time.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any

import torch
from PIL import Image

from ..options import StyleOptions, UpscaleOptions
from . import images
from .finishing import steer_one
from .images import Picture
from .predictor import UNOBSERVED, Observer, Predictor

LARGE = 2048**2  # pixels; larger photos are stylized at a smaller size
PAINTED = 1_500_000  # pixels of the photo that is stylized; more if the upscaler would not reach the photo's size
ROWS = 512  # rows of a picture that are converted to floats in one step


def is_large(picture: Picture) -> bool:
    """Whether a picture is so large that strokes would not be visible."""
    return math.prod(picture.rgb.shape[1:]) > LARGE


def is_sized(options: StyleOptions, *, enlarged: bool = False) -> bool:
    """Whether a size is asked for, by ``max_size`` or, if the result is ``enlarged``, by that.

    A picture is then stylized at its own size even if it is large.
    """
    return enlarged or options.max_size is not None


def stylize_large(
    predictor: Predictor,
    upscaler: Predictor,
    photo: Picture,
    options: StyleOptions,
    observer: Observer = UNOBSERVED,
) -> Picture:
    """Stylizes a large photo, with all options applied at its own size.

    Args:
        predictor: A style network.
        upscaler: A super-resolution network.
        photo: The photo.
        options: As for :meth:`.predictor.Predictor.stylize_pictures`, without ``max_size``.
        observer: As there.

    Returns:
        A picture of the photo's size.

    Raises:
        InputError: As :meth:`.predictor.Predictor.stylize_pictures`.
    """
    small = images.shrink(photo, painted_side(photo, upscaler.network.scale))
    plain = replace(options, strength=1.0, keep_colors=False)  # applied below, at the photo's own size
    (painted,) = predictor.stylize_pictures([small], [plain], observer)
    enlarging = UpscaleOptions(tile=options.tile and min(options.tile, upscaler.network.tile))
    (large,) = upscaler.upscale_pictures([replace(painted, alpha=None)], [enlarging], observer)
    return replace(photo, rgb=steered(photo, fitted(large, photo), options))


def stylize_each(
    predictor: Predictor,
    upscaler: Callable[[], Predictor],
    own_size: Callable[[Picture, Any], bool],
    photos: Sequence[Picture],
    options: Sequence[StyleOptions],
    observer: Observer = UNOBSERVED,
) -> list[Picture]:
    """Stylizes photos, some at their own size, the others by :func:`stylize_large`.

    Args:
        predictor: A style network.
        upscaler: Returns a super-resolution network; called if a photo needs it.
        own_size: Whether a photo with its options is stylized at its own size.
        photos: Photos of any size.
        options: For each photo.
        observer: As for :meth:`.predictor.Predictor.stylize_pictures`.

    Raises:
        InputError: As :meth:`.predictor.Predictor.stylize_pictures`.
    """
    own = list(map(own_size, photos, options))
    usual = [*compress(photos, own)]
    results = iter(predictor.stylize_pictures(usual, [*compress(options, own)], observer) if usual else ())
    return [
        next(results) if at_own_size else stylize_large(predictor, upscaler(), photo, each, observer)
        for photo, each, at_own_size in zip(photos, options, own, strict=True)
    ]


def painted_side(photo: Picture, scale: int) -> int:
    """The longest side, in pixels, at which a large photo is stylized."""
    pixels = math.prod(photo.rgb.shape[1:])
    return math.ceil(max(photo.rgb.shape[1:]) * math.sqrt(max(PAINTED / pixels, 1 / scale**2)))


def fitted(large: Picture, photo: Picture) -> Picture:
    """A picture, which is slightly larger than a photo, reduced to the photo's size."""
    height, width = photo.rgb.shape[1:]
    return images.from_pil(large.to_pil().resize((width, height), Image.Resampling.LANCZOS))


def steered(photo: Picture, styled: Picture, options: StyleOptions) -> torch.Tensor:
    """Applies ``strength`` and ``keep_colors``; returns bytes, 3×H×W."""
    strips = zip(photo.rgb.split(ROWS, dim=1), styled.rgb.split(ROWS, dim=1), strict=True)
    return torch.cat([steer_one(each.float() / 255, style.float() / 255, options) for each, style in strips], dim=1)
