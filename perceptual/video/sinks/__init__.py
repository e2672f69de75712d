"""Sinks, which write results: video files, animations, folders of images."""

from pathlib import Path

from ...errors import InvalidOption
from ..clips import Clip
from ..options import VideoOptions
from .animation import KINDS, AnimationSink
from .container import CODECS_IN, VideoSink
from .folder import FolderSink
from .sink import Sink, part_of

__all__ = ["ENDINGS", "KINDS", "Sink", "open_sink", "part_of"]

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
        InvalidOption: The ending is unknown, an option does not apply to it, or the source would be overwritten.
    """
    check_kept(clip, target)
    ending = target.suffix.lower()
    if ending and options.format:
        raise InvalidOption(f"format is for a folder of images; the ending of {target} says the format")
    if ending in CODECS_IN:
        return VideoSink(clip, target, options, origin, resume=resume)
    if ending and ending not in KINDS:
        raise InvalidOption(
            f"{target}: name the result {', '.join(ENDINGS)}, or without an ending for a folder of images"
        )
    if options.codec or options.crf is not None:
        raise InvalidOption(f"codec and crf are for videos, not for {ending or 'a folder of images'}")
    if not ending:
        return FolderSink(clip, target, options.format or "png", options.quality, origin, resume=resume)
    if resume and part_of(target).exists():
        raise InvalidOption(f"{target}: a partial {ending} cannot be resumed; start again without --resume")
    return AnimationSink(clip, target, options.quality)


def check_kept(clip: Clip, target: Path) -> None:
    """Raises InvalidOption if the result, or its partial file, would overwrite the source or an image in it."""
    read = {each.resolve() for each in (clip.path, *clip.files)}
    for written in (target, part_of(target)):
        if written.resolve() in read:
            raise InvalidOption(f"{written} would overwrite the video; choose another --output")
