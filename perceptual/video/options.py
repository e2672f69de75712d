"""The options of a video, in addition to those of a picture."""

from dataclasses import dataclass

from ..options import FORMATS, CollectionOptions
from ..settings import Choice, Integer, Number, setting

CODECS = ("h264", "hevc", "av1", "vp9", "ffv1")


@dataclass(frozen=True)
class VideoOptions(CollectionOptions):
    """Options of a video. ``format`` is for a folder of images, ``quality`` for these and for animated WebP."""

    format: str | None = setting(None, Choice(FORMATS), "format of the images, if the result is a folder; default: png")
    codec: str | None = setting(
        None, Choice(CODECS), "codec of the result; ffv1 is lossless; default: h264, in .webm vp9"
    )
    crf: int | None = setting(
        None, Integer(0, 63), "constant rate factor: lower is better quality; default: h264 20, hevc 22, av1 and vp9 30"
    )
    grain: float | None = setting(
        0.0,
        Number(0, 1),
        "strength of smooth noise that each frame gets first, from which a network that was trained with it makes "
        "strokes in flat areas; none by default, as it stays in place while the scene moves",
    )
    steady: str = setting(
        "strong",
        Choice(("off", "normal", "strong")),
        "reduces flicker: how strongly strokes follow the objects on which they are painted",
    )
    fps: float = setting(25.0, Number(0.01, 1000), "frames per second of a folder of images")
