"""From the bytes of a photo to those of a result: what commands and bulk jobs do with each one."""

from collections.abc import Callable

from ..options import PictureOptions, StyleOptions, UpscaleOptions
from . import images
from .codecs import decoding
from .codecs.decoding import Pixels
from .images import Limits
from .predictor import Predictor

Decode = Callable[[bytes, Limits], Pixels]


class Conversion:
    """Makes, of a photo's content, the content of a result.

    Args:
        predictor: The network.
        options: What is wanted of it, for all photos: those of its task.
        decode: Decodes photos; by default, in this process.

    Raises:
        WeightsError: The network is for another task.
        InputError: It has no such style, or not in that size of strokes; so that this is one error, not one per photo.
    """

    def __init__(
        self, predictor: Predictor, options: StyleOptions | UpscaleOptions, decode: Decode = decoding.decode
    ) -> None:
        self.predictor, self.options, self.decode = predictor, options, decode
        if isinstance(options, StyleOptions):
            predictor.require("style")
            predictor.conditions([options])
        else:
            predictor.require("super-resolution")

    def __call__(self, photo: bytes, format: str) -> bytes:
        """The result, in one of :data:`perceptual.options.FORMATS`.

        Raises:
            InputError: The photo cannot be read, or it or the result would be too large.
            OutOfMemory: A GPU has too little memory left.
        """
        options: PictureOptions = self.options
        limits = Limits(images.MAX_PIXELS, self.predictor.network.scale, format, getattr(options, "max_size", None))
        decoded = images.from_pixels(self.decode(photo, limits))
        if isinstance(options, StyleOptions):
            (picture,) = self.predictor.stylize_pictures([decoded], [options])
        else:
            assert isinstance(options, UpscaleOptions)
            (picture,) = self.predictor.upscale_pictures([decoded], [options])
        return images.encode(picture, format, options.quality)

    @property
    def done(self) -> str:
        """The word for what was done to a photo."""
        style = isinstance(self.options, StyleOptions)
        return "stylized" if style else f"enlarged {self.predictor.network.scale} times"
