"""The handler of super-resolution archives."""

from collections.abc import Sequence

from perceptual.inference.images import Picture
from perceptual.options import UpscaleOptions
from perceptual.worker.handler import ImageHandler
from perceptual.worker.measure import Watch


class SuperResolutionHandler(ImageHandler):
    """Enlarges every picture of a batch, each with its own options."""

    options = UpscaleOptions

    def scale_of(self, options: UpscaleOptions) -> int:
        """The network's factor. Raises InputError as :meth:`perceptual.inference.predictor.Predictor.conditions`."""
        self.predictor.conditions([options])
        return self.predictor.network.scale

    def run(self, pictures: Sequence[Picture], options: Sequence[UpscaleOptions], watch: Watch) -> list[Picture]:
        """As :meth:`perceptual.inference.predictor.Predictor.upscale_pictures`."""
        return self.predictor.upscale_pictures(pictures, options, watch)
