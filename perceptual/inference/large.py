"""Large photos in a style: painted at a size at which strokes show, then enlarged to their own size.

Strokes have a size in pixels, that of the training. On a photo of many megapixels they are so small that the result
looks like the photo, recoloured, with fine noise. And beyond four megapixels a network runs in bands, several times as
slowly per pixel: painting a smaller photo and enlarging it by super-resolution takes less time.
"""

import math
from dataclasses import replace

import torch
from PIL import Image

from ..options import StyleOptions, UpscaleOptions
from . import images
from .finishing import steer_one
from .images import Picture
from .predictor import Predictor

LARGE = 2048**2  # pixels; more are painted smaller
PAINTED = 1_500_000  # pixels, at which strokes show; more where the upscaler would not reach the photo's size
ROWS = 512  # of a picture, of which floats are made at once


def is_large(picture: Picture) -> bool:
    """Whether strokes would be lost on a picture."""
    return math.prod(picture.rgb.shape[1:]) > LARGE


def stylize_large(predictor: Predictor, upscaler: Predictor, photo: Picture, options: StyleOptions) -> Picture:
    """Stylizes a large photo, with all options applied at its own size.

    Args:
        predictor: Of the style.
        upscaler: A network of super-resolution.
        photo: Reduced to ``max_size`` already.
        options: As for :meth:`.predictor.Predictor.stylize_pictures`.

    Returns:
        A picture of the photo's size.

    Raises:
        InputError: As :meth:`.predictor.Predictor.stylize_pictures`.
    """
    small = images.shrink(photo, painted_side(photo, upscaler.network.scale))
    alone = replace(options, strength=1.0, keep_colors=False, max_size=None)  # what is steered by the photo comes last
    (painted,) = predictor.stylize_pictures([small], [alone])
    (large,) = upscaler.upscale_pictures([replace(painted, alpha=None)], [UpscaleOptions(tile=options.tile)])
    return replace(photo, rgb=steered(photo, fitted(large, photo), options))


def painted_side(photo: Picture, scale: int) -> int:
    """The longest side, in pixels, at which a photo is painted."""
    pixels = math.prod(photo.rgb.shape[1:])
    return math.ceil(max(photo.rgb.shape[1:]) * math.sqrt(max(PAINTED / pixels, 1 / scale**2)))


def fitted(large: Picture, photo: Picture) -> Picture:
    """A picture in a photo's size, of which it has a little more."""
    height, width = photo.rgb.shape[1:]
    return images.from_pil(large.to_pil().resize((width, height), Image.Resampling.LANCZOS))


def steered(photo: Picture, styled: Picture, options: StyleOptions) -> torch.Tensor:
    """The style's part and the photo's, as the options say: bytes, 3×H×W."""
    strips = zip(photo.rgb.split(ROWS, dim=1), styled.rgb.split(ROWS, dim=1), strict=True)
    return torch.cat([steer_one(each.float() / 255, style.float() / 255, options) for each, style in strips], dim=1)
