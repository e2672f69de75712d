"""The handler of style transfer archives."""

from collections.abc import Callable, Sequence
from pathlib import Path

from perceptual.inference.conversion import upscaler_of
from perceptual.inference.images import Picture
from perceptual.inference.large import is_sized, stylize_each
from perceptual.inference.predictor import Predictor
from perceptual.options import StyleOptions
from perceptual.worker.handler import ImageHandler
from perceptual.worker.measure import Watch


class StyleTransferHandler(ImageHandler):
    """Stylizes every picture of a batch, each with its own options; large ones at a smaller size.

    Attributes:
        upscaler: Returns the network that enlarges photos stylized at a smaller size.
    """

    options = StyleOptions
    upscaler: Callable[[], Predictor]

    def load(self, folder: Path, device: str, engine: str) -> None:
        """Loads the style network; the super-resolution network is loaded for the first large photo."""
        super().load(folder, device, engine)
        self.upscaler = upscaler_of(folder, device, engine)

    def warm_up_options(self) -> list[StyleOptions]:
        """The first style: all styles run the same layers."""
        return [StyleOptions(style=((self.predictor.styles[0], 1.0),))]

    def scale_of(self, options: StyleOptions) -> int:
        """1. Raises InputError as :meth:`perceptual.inference.predictor.Predictor.conditions`."""
        self.predictor.conditions([options])
        return 1

    def sized(self, options: StyleOptions) -> bool:
        """True if a size is requested; the strokes of other large photos would be too fine."""
        return is_sized(options)

    def run(self, pictures: Sequence[Picture], options: Sequence[StyleOptions], watch: Watch) -> list[Picture]:
        """As :func:`perceptual.inference.large.stylize_each`."""
        return stylize_each(self.predictor, self.upscaler, self.runs_at_own_size, pictures, options, watch)
