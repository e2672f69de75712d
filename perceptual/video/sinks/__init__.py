"""Sinks, where results go: video files, animations, folders of images."""

from pathlib import Path

from ...errors import InvalidOption
from ..clips import Clip
from ..options import VideoOptions
from .animation import KINDS, AnimationSink
from .container import HOLDS, VideoSink
from .folder import FolderSink
from .sink import Sink, part_of

__all__ = ["ENDINGS", "Sink", "open_sink", "part_of"]

ENDINGS = (*HOLDS, *KINDS)


def open_sink(clip: Clip, target: Path, options: VideoOptions, origin: str, *, resume: bool) -> Sink:
    """Opens the sink that a result's name asks for; a name without an ending is a folder's.

    Args:
        clip: The source.
        target: Where the result goes.
        options: Codec and crf of a video, format and quality of images.
        origin: As for :class:`VideoSink`.
        resume: Go on with what an earlier run left, if it left something.

    Raises:
        InvalidOption: Unknown ending, or options that it does not go with.
    """
    ending = target.suffix.lower()
    if ending in HOLDS:
        return VideoSink(clip, target, options, origin, resume=resume)
    if ending and ending not in KINDS:
        raise InvalidOption(f"{target}: a result ends in {', '.join(ENDINGS)}, or in nothing, for a folder of images")
    if options.codec or options.crf is not None:
        raise InvalidOption(f"codec and crf are for videos, not for {ending or 'a folder of images'}")
    if not ending:
        return FolderSink(clip, target, options.format or "png", options.quality, resume=resume)
    if resume and part_of(target).exists():
        raise InvalidOption(f"{target}: {ending} cannot be gone on with; start anew, without --resume")
    return AnimationSink(clip, target, options.quality)
