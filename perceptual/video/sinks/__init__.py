"""Sinks, which write results: video files, animations, folders of images."""

from pathlib import Path

from ...errors import InvalidOption
from ..clips import Clip
from ..options import VideoOptions
from .animation import KINDS, AnimationSink
from .container import CODECS_IN, VideoSink
from .folder import FolderSink
from .sink import Sink, part_of

__all__ = ["ENDINGS", "Sink", "open_sink", "part_of"]

ENDINGS = (*CODECS_IN, *KINDS)


def open_sink(clip: Clip, target: Path, options: VideoOptions, origin: str, *, resume: bool) -> Sink:
    """Opens the sink for a result, chosen by the ending of its name; a name without an ending is a folder.

    Args:
        clip: The source.
        target: Path of the result.
        options: Codec and crf of a video, format and quality of images.
        origin: As for :class:`VideoSink`.
        resume: Continue the partial file of an earlier run, if there is one.

    Raises:
        InvalidOption: The ending is unknown, or an option does not apply to it.
    """
    ending = target.suffix.lower()
    if ending in CODECS_IN:
        return VideoSink(clip, target, options, origin, resume=resume)
    if ending and ending not in KINDS:
        raise InvalidOption(
            f"{target}: name the result {', '.join(ENDINGS)}, or without an ending for a folder of images"
        )
    if options.codec or options.crf is not None:
        raise InvalidOption(f"codec and crf are for videos, not for {ending or 'a folder of images'}")
    if not ending:
        return FolderSink(clip, target, options.format or "png", options.quality, resume=resume)
    if resume and part_of(target).exists():
        raise InvalidOption(f"{target}: a partial {ending} cannot be resumed; start again without --resume")
    return AnimationSink(clip, target, options.quality)
