"""The base class of clips: an iterator over frames with their times."""

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
        pts: Presentation time, in units of the clip's time base.
        duration: In the same units; 0 if the clip does not state it.
    """

    picture: Picture
    pts: int
    duration: int = 0


class Clip(ABC):
    """Frames, and the properties of their source that a result keeps. A context manager, which closes the source.

    Attributes:
        path: Of the source.
        files: That are read: the source itself, or the images in it, in the order of frames.
        time_base: Seconds, the unit of times.
        start: Presentation time of the first frame, in this unit; known once that frame is read.
        rate: Mean frames per second, as far as known before all are read.
        count: Number of frames, as the source states it; None if it does not.
        aspect: Width of a pixel divided by its height.
        colours: Of the pixels.
        last_duration: Duration of the last frame, in seconds; 0 if it is not known before all frames are read.
        transparent: Whether frames may have alpha.
        plays: How many times an animation is played; 0 means without end.
        copied: Streams whose packets are passed through between the frames.
        repeated: Number of damaged frames so far, each of which was replaced by the frame before.
        faults: Messages about faults of the source; complete when all frames were read.
        omitted: Names of the other streams of the source, which a result does not contain.
    """

    time_base: Fraction
    start = 0
    rate: Fraction
    count: int | None = None
    aspect = Fraction(1)
    last_duration = Fraction(0)
    colours: Colours = VIDEO_COLOURS
    transparent = False
    plays = 0

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = [path]
        self.copied: list[Stream] = []
        self.repeated = 0
        self.faults: list[str] = []
        self.omitted: list[str] = []

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
