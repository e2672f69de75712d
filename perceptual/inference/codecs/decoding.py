"""Decodes a file's bytes to pixels."""

from dataclasses import dataclass

import numpy as np

from . import formats
from .colour import Bands, to_srgb, upright
from .encoded import pillow_errors
from .limits import Limits
from .metadata import Metadata


@dataclass(frozen=True, eq=False)
class Pixels:
    """A decoded picture, upright and in sRGB.

    Attributes:
        rgb: uint8, H×W×3.
        alpha: Opacity, uint8, H×W; None if the file had none.
        metadata: The file's metadata; orientation and colour space are already applied.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None
    metadata: Metadata


def decode(data: bytes | bytearray, limits: Limits) -> Pixels:
    """Decodes a file of one of :data:`perceptual.inference.codecs.formats.READABLE`; of several frames, the first.

    Raises:
        InvalidImage: Not an image, or a truncated or damaged one.
        UnsupportedFormat: An image of another format, or of a flavour that is not supported.
        ImageTooLarge: The picture or its result is over a limit.
    """
    encoded = formats.read(data)
    limits.check(*encoded.size)
    return finish(encoded.load(), encoded.metadata)


def finish(bands: Bands, metadata: Metadata) -> Pixels:
    """Converts decoded bands to pixels. Raises InvalidImage if that fails, such as without a palette."""
    color, alpha = bands
    with pillow_errors("the image"):
        rgb = upright(to_srgb(color, metadata), metadata.orientation)
        shown = None if alpha is None else np.asarray(upright(alpha, metadata.orientation))
    return Pixels(np.asarray(rgb), shown, metadata)
