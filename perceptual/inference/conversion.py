"""Converts the bytes of a photo to those of a result, for commands and bulk jobs."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from ..options import StyleOptions, UpscaleOptions
from . import images
from .codecs import decoding
from .codecs.decoding import Pixels
from .images import Limits, Picture
from .large import is_large, is_sized, stylize_large
from .metadata import LARGE, UPSCALER
from .predictor import Predictor, load

Decode = Callable[[bytes, Limits], Pixels]


class Conversion:
    """Converts a photo's content to the content of a result.

    Args:
        predictor: The network.
        options: For all photos; those of the network's task.
        upscaler: Returns the network that enlarges large photos, which are stylized at a smaller size unless the
            options ask for a size; without it, they are stylized at their own size.
        decode: Decodes photos; by default, in this process.
        enlarger: A super-resolution network, which enlarges stylized photos; they are all stylized at their own size.

    Raises:
        WeightsError: A network is for another task.
        InputError: It has no such style or size of strokes: one error here, not one for each photo.
    """

    def __init__(
        self,
        predictor: Predictor,
        options: StyleOptions | UpscaleOptions,
        upscaler: Callable[[], Predictor] | None = None,
        decode: Decode = decoding.decode,
        enlarger: Predictor | None = None,
    ) -> None:
        self.predictor, self.options, self.upscaler, self.decode = predictor, options, upscaler, decode
        self.enlarger = enlarger
        if isinstance(options, StyleOptions):
            predictor.require("style")
        else:
            predictor.require("super-resolution")
        predictor.conditions([options])
        if enlarger:
            enlarger.require("super-resolution")

    def __call__(self, photo: bytes, format: str) -> bytes:
        """The result, in one of :data:`perceptual.options.FORMATS`.

        Raises:
            InputError: The photo cannot be read, or it or the result would be too large.
            OutOfMemory: A GPU has too little memory left.
        """
        max_size = getattr(self.options, "max_size", None)
        limits = Limits(images.MAX_PIXELS, (self.enlarger or self.predictor).network.scale, format, max_size)
        decoded = images.from_pixels(self.decode(photo, limits))
        if isinstance(self.options, StyleOptions):
            picture = self.stylize(images.shrink(decoded, max_size), self.options)
        else:
            (picture,) = self.predictor.upscale_pictures([decoded], [self.options])
        return images.encode(picture, format, self.options.quality)

    def stylize(self, picture: Picture, options: StyleOptions) -> Picture:
        """Stylizes a picture, and enlarges it if there is a network for that."""
        sized = is_sized(options, enlarged=self.enlarger is not None)
        if self.upscaler and not sized and is_large(picture):
            return stylize_large(self.predictor, self.upscaler(), picture, options)
        (styled,) = self.predictor.stylize_pictures([picture], [options])
        if self.enlarger:
            enlarging = UpscaleOptions(tile=options.tile and min(options.tile, self.enlarger.network.tile))
            (styled,) = self.enlarger.upscale_pictures([styled], [enlarging])
        return styled

    @property
    def done(self) -> str:
        """The participle for reports: ``stylized``, ``enlarged 4 times``, or both."""
        enlarging = self.enlarger or self.predictor
        steps = ["stylized"] if isinstance(self.options, StyleOptions) else []
        steps += [f"enlarged {enlarging.network.scale} times"] if enlarging.network.scale > 1 else []
        return " and ".join(steps)


def upscaler_of(archive: Path, device: str | None, engine: str) -> Callable[[], Predictor]:
    """As :func:`upscaler_on`, with the network of an unpacked archive."""
    (file,) = (archive / LARGE).glob("*.safetensors")
    return cache(lambda: load(file, device, engine))


def upscaler_on(device: str | None, engine: str) -> Callable[[], Predictor]:
    """A function that returns the network for large photos; it is loaded at the first call."""
    return cache(lambda: load(UPSCALER, device, engine))
