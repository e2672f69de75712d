"""The speed of networks on this machine, which limits requests by seconds of work rather than by pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..inference.large import PAINTED

MAX_SECONDS = 120.0  # of work on a CPU that a request may ask for
ORDINARY = 25_000_000  # pixels of a photo as phones and cameras take it: never refused, however slow the machine seems
PATIENCE = 3.0  # times as long as at the best pace that a request may take, as others use the machine too
PAINTED_SMALLER = 0.4  # times as long as in one pass, for a photo that is painted smaller and enlarged, by OpenVINO
SMALLEST = 16 * PAINTED  # pixels of such a photo; one with fewer takes as long, as it is painted at the same size
SHARE = 0.9  # of the time in which a batch must be answered; in the rest its replies are encoded


@dataclass
class Pace:
    """Seconds per pixel that a network takes for a photo in one pass: the best measurement so far.

    Other load on the machine only makes a measurement worse. So the best of many comes near to what the machine can
    do, even if it was busy at first.

    Attributes:
        at_once: Pixels of the largest photo that is run in one pass.
        in_parts: How many times as long the same pixels take in parts.
        seconds: Seconds per pixel; infinite before the first measurement.
    """

    at_once: float
    in_parts: float
    seconds: float = math.inf

    def learn(self, pixels: int, seconds: float, *, smaller: bool = False) -> None:
        """Adds a measurement: a photo of some pixels took some seconds, painted smaller or not."""
        self.seconds = min(self.seconds, seconds / pixels / self.times(pixels, smaller))

    def expected(self, pixels: float, *, smaller: bool = False) -> float:
        """Seconds that a photo takes, painted smaller or not."""
        return self.seconds * pixels * self.times(pixels, smaller)

    def times(self, pixels: float, smaller: bool) -> float:
        """How many times as long each pixel of a photo takes as in one pass."""
        if smaller:
            return PAINTED_SMALLER * max(1.0, SMALLEST / pixels)
        return self.in_parts if pixels > self.at_once else 1.0


def most_pixels(paces: Sequence[Pace], seconds: float, *, smaller: bool) -> int | None:
    """Pixels of the largest photo that networks of these paces, one after the other, finish in time.

    Args:
        paces: Of the networks.
        seconds: The time.
        smaller: Whether a photo of more than :data:`ORDINARY` pixels is painted smaller.

    Returns:
        At least :data:`ORDINARY`; None if there is no measurement yet.
    """
    each = sum(pace.seconds * pace.times(math.inf, smaller) for pace in paces)
    return max(ORDINARY, int(seconds / each)) if 0 < each < math.inf else None


def allowed(paces: Sequence[Pace], pixels: int, seconds: float, *, smaller: bool) -> float:
    """Seconds after which work on a photo is given up: at least ``seconds``, or :data:`PATIENCE` times the expected."""
    if not paces:
        return math.inf
    return max(seconds, PATIENCE * sum(pace.expected(pixels, smaller=smaller) for pace in paces))
