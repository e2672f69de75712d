"""The worker of super-resolution archives."""

from collections.abc import Sequence

from perceptual.handler import ImageHandler
from perceptual.images import Picture
from perceptual.measure import Watch
from perceptual.options import UpscaleOptions


class SuperResolutionHandler(ImageHandler):
    """Enlarges every picture of a batch, each with its own options."""

    options = UpscaleOptions

    def run(self, pictures: Sequence[Picture], options: Sequence[UpscaleOptions], watch: Watch) -> list[Picture]:
        """As :meth:`perceptual.predictor.Predictor.upscale_pictures`."""
        return self.predictor.upscale_pictures(pictures, options, watch)
