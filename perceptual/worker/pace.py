"""The speed of networks on this machine, which limits requests by seconds of work rather than by pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

MAX_SECONDS = 120.0  # of work on a CPU that a request may ask for
ORDINARY = 25_000_000  # pixels of a photo as phones and cameras take it: never refused, however slow the machine seems
PATIENCE = 3.0  # times as long as at the best pace that a request may take, as others use the machine too
SHARE = 0.9  # of the time in which a batch must be answered; in the rest its replies are encoded


@dataclass
class Pace:
    """Seconds per pixel that a network takes for a large photo, which it runs in parts: the best measurement so far.

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

    def learn(self, pixels: int, seconds: float) -> None:
        """Adds a measurement: a photo of some pixels took some seconds."""
        times = self.in_parts if pixels <= self.at_once else 1.0
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
