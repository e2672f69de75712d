"""How long a network takes for one image."""

import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from perceptual.networks import StyleNetwork
from perceptual.predictor import Predictor


def measure(sizes: list[int], repeats: int) -> Iterator[dict[str, Any]]:
    """Times every preset of the style network at every size, batch 1, on the best device.

    The presets take turns, so that a machine that slows down in between slows them all. What a network takes does not
    depend on its weights, so they are random.
    """
    predictors = {name: Predictor(StyleNetwork(**config).eval(), {}) for name, config in StyleNetwork.presets.items()}
    for size in sizes:
        photo = torch.rand(1, 3, size, size)
        for predictor in predictors.values():
            predictor(photo)  # the first call allocates and picks algorithms
        seconds: dict[str, list[float]] = {name: [] for name in predictors}
        for _ in range(repeats):
            for name, predictor in predictors.items():
                seconds[name].append(timed(predictor, photo))
        for name, taken in seconds.items():
            median = statistics.median(taken)
            print(f"{name} at {size}²: {median:.3f} s", file=sys.stderr)
            yield {
                "network": f"style, {name}",
                "image": f"{size}²",
                "seconds": round(median, 4),
                "from": round(min(taken), 4),
                "to": round(max(taken), 4),
                "images/s": round(1 / median, 2),
            }


def timed(predictor: Predictor, photo: Tensor) -> float:
    """Seconds for a photo on the CPU to come back as a picture on the CPU."""
    begin = time.perf_counter()
    predictor(photo)
    return time.perf_counter() - begin
