"""The speed of networks on this machine, which limits requests by seconds of work rather than by pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..inference.large import PAINTED

MAX_SECONDS = 120.0  # of work on a CPU for one request
ORDINARY = 25_000_000  # pixels; photos of ordinary cameras and phones are never refused, however slow the machine is
PATIENCE = 3.0  # work may take this many times the time expected from the best pace, as the machine has other load too
PAINTED_SMALLER = 0.4  # time per pixel of a photo that is stylized at a smaller size, relative to one pass, on OpenVINO
SMALLEST = 16 * PAINTED  # pixels; smaller ones of these photos take as long, as they are stylized at the same size
SHARE = 0.9  # share of responseTimeout in which a batch must be computed; the rest is for encoding replies


@dataclass
class Pace:
    """Seconds per pixel that a network takes for a photo in one pass: the best measurement so far.

    Other load on the machine can only make a measurement worse. So the best of many is close to the machine's speed,
    even if it was busy at first.

    Attributes:
        one_pass: Pixels of the largest photo that is run in one pass.
        in_parts: Time per pixel in parts, relative to that in one pass.
        seconds: Seconds per pixel; infinite before the first measurement.
    """

    one_pass: float
    in_parts: float
    seconds: float = math.inf

    def measure(self, pixels: int, seconds: float, *, smaller: bool = False) -> None:
        """Adds a measurement: the pixels of a photo, its seconds, and whether it was stylized at a smaller size."""
        self.seconds = min(self.seconds, seconds / pixels / self.times(pixels, smaller))

    def expected(self, pixels: float, *, smaller: bool = False) -> float:
        """Expected seconds for a photo; ``smaller`` if it is stylized at a smaller size."""
        return self.seconds * pixels * self.times(pixels, smaller)

    def times(self, pixels: float, smaller: bool) -> float:
        """Time per pixel of a photo, relative to that in one pass."""
        if smaller:
            return PAINTED_SMALLER * max(1.0, SMALLEST / pixels)
        return self.in_parts if pixels > self.one_pass else 1.0


def most_pixels(paces: Sequence[Pace], seconds: float, *, smaller: bool) -> int | None:
    """Pixels of the largest photo that networks of these paces, one after the other, finish in time.

    Args:
        paces: Of the networks.
        seconds: The time.
        smaller: Whether photos of more than :data:`ORDINARY` pixels are stylized at a smaller size.

    Returns:
        At least :data:`ORDINARY`; None if there is no measurement yet.
    """
    each = sum(pace.seconds * pace.times(math.inf, smaller) for pace in paces)
    return max(ORDINARY, int(seconds / each)) if 0 < each < math.inf else None


def allowed(paces: Sequence[Pace], pixels: int, seconds: float, *, smaller: bool) -> float:
    """Seconds after which work on a photo is aborted: at least ``seconds``, or :data:`PATIENCE` times the expected."""
    if not paces:
        return math.inf
    return max(seconds, PATIENCE * sum(pace.expected(pixels, smaller=smaller) for pace in paces))
