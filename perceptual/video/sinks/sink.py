"""The base class of sinks: they receive frames and write a partial file, which is renamed when it is complete."""

from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import av
from av.packet import Packet

from ...errors import InvalidOption, InvalidVideo
from ...inference.images import Picture
from ..clips import Frame


def part_of(target: Path) -> Path:
    """The path of the partial file: ``clip.part.mp4`` for ``clip.mp4``.

    Raises:
        InvalidOption: The path has no name, such as ``.`` or ``/``.
    """
    if not target.name:
        raise InvalidOption(f"{target}: name the result, such as {target / 'clip.mp4'}")
    return target.with_name(f"{target.stem}.part{target.suffix}")


def check_origin(part: Path, made_from: str, origin: str) -> None:
    """Raises InvalidOption if the origin of a partial result is not that of the result that shall continue it."""
    if made_from != origin:
        raise InvalidOption(f"{part}: made from another file or with other options; start again without --resume")


class Sink(ABC):
    """A result while it is written. A context manager, which closes the partial file so that it can be played.

    Attributes:
        target: Path of the complete result.
        part: Path of the partial file.
        done: Number of frames that an earlier run has written.
    """

    done = 0

    def __init__(self, target: Path) -> None:
        self.target = target
        self.part = part_of(target)
        self.closed = False
        self.size: tuple[int, int] | None = None

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Adds a frame."""

    def check_size(self, picture: Picture) -> None:
        """Raises InvalidVideo if a picture is not as large as the first, for results of one size."""
        height, width = picture.rgb.shape[1:]
        self.size = self.size or (width, height)
        if self.size != (width, height):
            first, other = (f"{each[0]} × {each[1]}" for each in (self.size, (width, height)))
            raise InvalidVideo(f"{self.target}: frames have one size; the first has {first} pixels, one has {other}")

    def last(self) -> Picture | None:
        """The last picture that an earlier run has written; None if there is none."""
        return None

    def copy(self, packet: Packet) -> None:  # noqa: B027
        """Adds a packet of sound or subtitles; ignored if the result cannot hold them."""

    def close(self) -> None:
        """Completes the partial file, so that it can be played."""
        if not self.closed:
            self.closed = True
            self.finish()

    @abstractmethod
    def finish(self) -> None:
        """Writes buffered data and closes the file."""

    @abstractmethod
    def publish(self) -> None:
        """Renames the closed partial file to the result's path, atomically."""

    def __enter__(self) -> "Sink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with suppress(OSError, av.FFmpegError):  # it would repeat ``error``, such as a full disk
            self.close()
