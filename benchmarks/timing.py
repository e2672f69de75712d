"""Times alternatives in turn, and summarizes the times."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

Way = TypeVar("Way")


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of several measurements."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """The spread of values; at least one."""
        known = list(values)
        return cls(statistics.median(known), min(known), max(known))

    @classmethod
    def of_ratios(cls, above: Iterable[float], below: Iterable[float]) -> "Spread":
        """The spread of ratios, each of two measurements of the same round."""
        return cls.of(a / b for a, b in zip(above, below, strict=True))


def alternate(ways: Mapping[Way, Callable[[], object]], repeats: int, device: torch.device) -> dict[Way, list[float]]:
    """Seconds that each way takes, round by round.

    The ways take turns, so that a change of the machine's speed affects all of them. The first round, in which memory
    is allocated and algorithms are chosen, does not count.

    Args:
        ways: What to time, by name.
        repeats: Rounds that count.
        device: The device, whose work is completed before a time is taken.
    """
    seconds: dict[Way, list[float]] = {name: [] for name in ways}
    for number in range(1 + repeats):
        for name, run in ways.items():
            begin = now(device)
            run()
            taken = now(device) - begin
            if number > 0:
                seconds[name].append(taken)
    return seconds


def now(device: torch.device) -> float:
    """Waits until the device has completed its work; returns the time in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
