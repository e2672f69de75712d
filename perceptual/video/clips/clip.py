"""What every clip is: frames with their times, one after another."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Union

from ...inference.images import Picture
from ..colours import VIDEO_COLOURS, Colours

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture and when it is shown.

    Attributes:
        picture: Upright, in the RGB of the clip.
        pts: From when on, in units of the clip's time base.
        duration: For how long, in the same units; 0 where the clip does not say.
    """

    picture: Picture
    pts: int
    duration: int = 0


class Clip(ABC):
    """Frames, and what a result should keep of their source. A context manager, which closes the source.

    Attributes:
        path: Of the source.
        time_base: Seconds, the unit of times.
        rate: Mean frames per second, as far as known before all are read.
        count: Number of frames, as the source says; None if it does not.
        aspect: Width of a pixel divided by its height.
        colours: Of the pixels.
        last: Seconds for which the last frame is shown; 0 where that is not known before all are read.
        transparent: Whether frames may have alpha.
        plays: How often an animation is shown; 0 is without end.
        copied: Streams whose packets come between the frames.
        repeated: Number of frames, of those that were read, that were damaged and replaced by the one before.
        faults: Sentences on what went wrong, complete once all frames were read.
        passed_over: What the source holds besides, and results will not.
    """

    time_base: Fraction
    rate: Fraction
    count: int | None = None
    aspect = Fraction(1)
    last = Fraction(0)
    colours: Colours = VIDEO_COLOURS
    transparent = False
    plays = 0

    def __init__(self, path: Path) -> None:
        self.path = path
        self.copied: list[Stream] = []
        self.repeated = 0
        self.faults: list[str] = []
        self.passed_over: list[str] = []

    @abstractmethod
    def __iter__(self) -> Iterator[Union[Frame, "Packet"]]:
        """The frames in the order of their times, and between them the packets of ``copied``."""

    def close(self) -> None:  # noqa: B027
        """Closes the source."""

    def __enter__(self) -> "Clip":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
