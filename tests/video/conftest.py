import pytest

import perceptual


@pytest.fixture(scope="session")
def predictor(weights):
    return perceptual.load(weights, device="cpu", engine="eager")


@pytest.fixture
def convert(predictor):
    """Writes a clip anew, frame by frame, without a network."""
    from perceptual.video import conversion
    from perceptual.video.options import VideoOptions
    from perceptual.video.steady import Steady

    def run(source, target, transform=list, resume=False, progress=None, stop=None, **options):
        begin = (lambda result, frame: transform.begin(frame, result)) if isinstance(transform, Steady) else None
        return conversion.convert(
            source, target, [predictor], transform, VideoOptions(**options), resume, progress, stop, begin
        )

    return run
