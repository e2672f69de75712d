"""The worker of style transfer archives."""

from collections.abc import Sequence

from perceptual.handler import ImageHandler
from perceptual.images import Picture
from perceptual.measure import Watch
from perceptual.options import StyleOptions


class StyleTransferHandler(ImageHandler):
    """Stylizes every picture of a batch, each with its own options."""

    options = StyleOptions

    def run(self, pictures: Sequence[Picture], options: Sequence[StyleOptions], watch: Watch) -> list[Picture]:
        """As :meth:`perceptual.predictor.Predictor.stylize_pictures`."""
        return self.predictor.stylize_pictures(pictures, options, watch)
