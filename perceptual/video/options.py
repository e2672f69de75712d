"""The options of a video, in addition to those of a picture."""

from dataclasses import dataclass

from ..options import CollectionOptions
from ..settings import Choice, Integer, Number, setting

CODECS = ("h264", "hevc", "av1", "vp9", "ffv1")


@dataclass(frozen=True)
class VideoOptions(CollectionOptions):
    """Options of a video. Format and quality are those of the images of a folder, quality that of animated WebP too."""

    codec: str | None = setting(
        None, Choice(CODECS), "how the video is encoded; ffv1 is lossless; default: h264, in .webm vp9"
    )
    crf: int | None = setting(
        None, Integer(0, 63), "how much the encoder may lose, less is better; default: h264 20, hevc 22, av1 and vp9 30"
    )
    steady: str = setting(
        "strong",
        Choice(("off", "normal", "strong")),
        "how much strokes follow what they are painted on, against flicker",
    )
    fps: float = setting(25.0, Number(0.01, 1000), "frames per second of a folder of images")
