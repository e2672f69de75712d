"""The speed of networks on this machine, which limits requests by seconds of work rather than by pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

MAX_SECONDS = 120.0  # of work on a CPU for one request
ORDINARY = 25_000_000  # pixels; photos of ordinary cameras and phones are never refused, however slow the machine is
PATIENCE = 3.0  # work may take this many times the time expected from the best pace, as the machine has other load too
SHARE = 0.9  # share of responseTimeout in which a batch must be computed; the rest is for encoding replies


@dataclass
class Pace:
    """Seconds per pixel that a network takes for a large photo, which it runs in parts: the best measurement so far.

    Other load on the machine can only make a measurement worse. So the best of many is close to the machine's speed,
    even if it was busy at first.

    Attributes:
        one_pass: Pixels of the largest photo that is run in one pass.
        in_parts: Time in parts divided by time in one pass, for the same pixels.
        seconds: Seconds per pixel; infinite before the first measurement.
    """

    one_pass: float
    in_parts: float
    seconds: float = math.inf

    def measure(self, pixels: int, seconds: float) -> None:
        """Adds a measurement: the pixels of a photo, and the seconds that it took."""
        times = self.in_parts if pixels <= self.one_pass else 1.0
        self.seconds = min(self.seconds, times * seconds / pixels)


def most_pixels(paces: Sequence[Pace], seconds: float) -> int | None:
    """Pixels of the largest photo that networks of these paces, one after the other, finish in time.

    At least :data:`ORDINARY`; None if there is no measurement yet.
    """
    each = sum(pace.seconds for pace in paces)
    return max(ORDINARY, int(seconds / each)) if 0 < each < math.inf else None


def allowed(paces: Sequence[Pace], pixels: int, seconds: float) -> float:
    """Seconds after which work on a photo is given up: at least ``seconds``, or :data:`PATIENCE` times the expected."""
    return max(seconds, PATIENCE * pixels * sum(pace.seconds for pace in paces)) if paces else math.inf
