"""Clips, the sources of frames: video files, animations, folders of images."""

from pathlib import Path

from ...errors import InvalidVideo
from .animation import Animation
from .clip import Clip, Frame
from .container import VideoFile
from .folder import Folder

__all__ = ["Clip", "Frame", "VideoFile", "open_clip"]

ANIMATIONS = (".gif", ".png", ".apng", ".webp")


def open_clip(path: Path, fps: float = 25) -> Clip:
    """Opens a clip.

    Args:
        path: A video file, an animated GIF, PNG or WebP, or a folder of images, in the order of the numbers in
            their names.
        fps: Frames per second of a folder.

    Raises:
        InvalidVideo: It is none of these, or damaged from the beginning.
        UnsupportedFormat: Its codec or its colour space is not supported.
    """
    if path.is_dir():
        return Folder(path, fps)
    if not path.is_file():
        raise InvalidVideo(f"{path}: there is no such file")
    return Animation(path) if path.suffix.lower() in ANIMATIONS else VideoFile(path)
