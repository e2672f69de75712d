"""What every sink is: it takes frames, and is a part until it is whole."""

from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from av.packet import Packet

from ...inference.images import Picture
from ..clips import Frame


def part_of(target: Path) -> Path:
    """Where a result is while it is worked on: beside it, ``clip.part.mp4`` for ``clip.mp4``."""
    return target.with_name(f"{target.stem}.part{target.suffix}")


class Sink(ABC):
    """A result in the making. A context manager: whatever happens, what was written by then can be played.

    Attributes:
        target: Where it goes when it is whole.
        part: Where it is before.
        done: Number of frames that an earlier run left, which need not be written again.
    """

    done = 0

    def __init__(self, target: Path) -> None:
        self.target = target
        self.part = part_of(target)
        self.closed = False

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Adds a frame."""

    def last(self) -> Picture | None:
        """The last of the pictures that an earlier run left, if it left some."""
        return None

    def copy(self, packet: Packet) -> None:  # noqa: B027
        """Adds a packet of sound or subtitles, where the result can hold it."""

    def close(self) -> None:
        """Completes the part, so that it can be played."""
        if not self.closed:
            self.closed = True
            self.finish()

    @abstractmethod
    def finish(self) -> None:
        """Writes what is held back."""

    @abstractmethod
    def publish(self) -> None:
        """Puts the closed part where the result goes, in one step."""

    def __enter__(self) -> "Sink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with suppress(OSError):  # for the same reason, such as a full disk; ``error`` tells of it
            self.close()
