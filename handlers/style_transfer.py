"""The handler of style transfer archives."""

from collections.abc import Sequence

from perceptual.inference.images import Picture
from perceptual.options import StyleOptions
from perceptual.worker.handler import ImageHandler
from perceptual.worker.measure import Watch


class StyleTransferHandler(ImageHandler):
    """Stylizes every picture of a batch, each with its own options."""

    options = StyleOptions

    def warm_up_options(self) -> list[StyleOptions]:
        """The first style, as all styles run the same layers."""
        return [StyleOptions(style=((self.predictor.styles[0], 1.0),))]

    def scale_of(self, options: StyleOptions) -> int:
        """1. Raises InputError as :meth:`perceptual.inference.predictor.Predictor.conditions`."""
        self.predictor.conditions([options])
        return 1

    def run(self, pictures: Sequence[Picture], options: Sequence[StyleOptions], watch: Watch) -> list[Picture]:
        """As :meth:`perceptual.inference.predictor.Predictor.stylize_pictures`."""
        return self.predictor.stylize_pictures(pictures, options, watch)
