"""How long work takes on this machine: by it, requests are bounded in seconds, whatever a picture claims to be."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

MAX_SECONDS = 120.0  # of work on a CPU that a request may ask for
ORDINARY = 25_000_000  # pixels of a photo as phones and cameras take it: never refused, however slow the machine seems
PATIENCE = 3.0  # times as long as at the best pace that a request may take, as others use the machine too
SHARE = 0.9  # of the time in which a batch must be answered; in the rest its replies are encoded


@dataclass
class Pace:
    """Seconds for each pixel of a photo that is worked on in parts: the best that was ever seen.

    What else runs on the machine only makes a measurement worse, so that the best of many comes near to what the
    machine can do, however busy it was at the first.

    Attributes:
        at_once: The most pixels that are worked on at once.
        in_parts: How many times as long the same pixels take in parts.
        seconds: For each pixel; infinite before the first measurement.
    """

    at_once: float
    in_parts: float
    seconds: float = math.inf

    def learn(self, pixels: int, seconds: float) -> None:
        """Takes in how long a photo took."""
        times = self.in_parts if pixels <= self.at_once else 1.0
        self.seconds = min(self.seconds, times * seconds / pixels)


def most_pixels(paces: Sequence[Pace], seconds: float) -> int | None:
    """The largest photo on which works of some paces, one after the other, take so long; None if nothing is known."""
    each = sum(pace.seconds for pace in paces)
    return max(ORDINARY, int(seconds / each)) if 0 < each < math.inf else None


def allowed(paces: Sequence[Pace], pixels: int, seconds: float) -> float:
    """Seconds after which works of some paces on a photo are given up: at least so many."""
    return max(seconds, PATIENCE * pixels * sum(pace.seconds for pace in paces)) if paces else math.inf
