"""Measurements of each request, for TorchServe's metrics and one line of the log.

TorchServe exports only the metrics listed in its ``metrics_config``: ours are in ``metrics.yaml``. A server with
another configuration ignores them.

The bounds of its histograms' buckets are fixed, from 0.005 to 10. In megabytes and megapixels, the sizes of photos are
in this range.
"""

import json
import logging
import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ts.metrics.metric_type_enum import MetricTypes

from ..errors import DeadlineExceeded
from ..inference.predictor import Observer

# By name: kind, unit, and labels in addition to the model's name and version, as in metrics.yaml.
METRICS = {
    "perceptual_requests_total": (MetricTypes.COUNTER, "count", []),  # begun; minus replies: in progress
    "perceptual_reply_seconds": (MetricTypes.HISTOGRAM, "s", ["Outcome"]),  # ok, or the name of the error
    "perceptual_stage_seconds": (MetricTypes.HISTOGRAM, "s", ["Stage"]),  # wait, decode, infer, match, encode
    "perceptual_megabytes": (MetricTypes.HISTOGRAM, "MB", ["Direction"]),  # in, out
    "perceptual_megapixels": (MetricTypes.HISTOGRAM, "MP", []),  # of the photos received
    "perceptual_tiles": (MetricTypes.HISTOGRAM, "count", []),  # parts in which a result was computed
}
MODEL = ["ModelName", "ModelVersion"]

logger = logging.getLogger(__name__)


@dataclass
class Record:
    """Measurements of one request since ``begin``; ``stages`` in seconds."""

    request_id: str
    begin: float = field(default_factory=time.perf_counter)
    stages: dict[str, float] = field(default_factory=dict)
    bytes: int = 0
    pixels: int = 0
    tiles: int = 0

    def server_timing(self) -> str:
        """The stages so far as the header ``Server-Timing``, in milliseconds: ``decode;dur=1.2, infer;dur=34.5``."""
        return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in self.stages.items())


class Watch(Observer):
    """Measures the stages of a batch, and records them for each of its requests.

    Args:
        records: Of the batch's requests.
        deadline: In seconds of ``time.perf_counter``; work that is not done by then is aborted.
    """

    def __init__(self, *records: Record, deadline: float = math.inf) -> None:
        self.records = records
        self.deadline = deadline

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage, added to earlier times of the same stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            for record in self.records:
                record.stages[name] = record.stages.get(name, 0.0) + time.perf_counter() - begin

    def tile(self) -> None:
        """Counts a part of the result."""
        for record in self.records:
            record.tiles += 1

    def proceed(self) -> None:
        """Raises DeadlineExceeded if the deadline has passed."""
        if time.perf_counter() > self.deadline:
            raise DeadlineExceeded(
                "the picture took much longer than expected for its size, and was aborted: this server is overloaded; "
                "try again later, or send a smaller picture"
            )


def waited(request_start: str | None) -> dict[str, float]:
    """The stage ``wait``: seconds since a request reached the front, from its header ``X-Request-Start``.

    Args:
        request_start: ``t=`` and seconds since 1970 with a fraction, as the front sets it; anything else is ignored,
            as are times in the future.
    """
    found = re.fullmatch(r"t=(\d{1,12}(?:\.\d{1,9})?)", request_start or "")
    seconds = time.time() - float(found[1]) if found else -1.0
    return {"wait": seconds} if seconds >= 0 else {}


class Meter:
    """Emits the metrics and the log line of each request.

    Args:
        context: TorchServe's, of the worker.
    """

    def __init__(self, context: Any) -> None:
        model = (context.manifest or {}).get("model", {})
        self.model = [str(context.model_name), str(model.get("modelVersion", ""))]
        self.metrics = {
            name: context.metrics.cache.get(kind, {}).get(name)
            or context.metrics.add_metric_to_cache(name, unit, [*MODEL, *labels], kind)
            for name, (kind, unit, labels) in METRICS.items()
        }

    def begin(self, request_id: str) -> Record:
        """Counts a request, and returns its record."""
        self.add("perceptual_requests_total", 1)
        return Record(request_id)

    def emit(self, record: Record, status: int, outcome: str, size: int) -> None:
        """Emits the metrics and the log line of an answered request.

        Args:
            record: Its measurements.
            status: HTTP status of the reply.
            outcome: ``ok``, or the name of the error.
            size: Bytes of the reply.
        """
        self.add("perceptual_reply_seconds", time.perf_counter() - record.begin, outcome)
        self.add("perceptual_megabytes", record.bytes / 1e6, "in")
        self.add("perceptual_megabytes", size / 1e6, "out")
        if record.pixels:  # 0 where nothing was decoded
            self.add("perceptual_megapixels", record.pixels / 1e6)
        if record.tiles:
            self.add("perceptual_tiles", record.tiles)
        for name, seconds in record.stages.items():
            self.add("perceptual_stage_seconds", seconds, name)
        stages = {f"{name}_ms": round(seconds * 1000, 2) for name, seconds in record.stages.items()}
        known = {"bytes_in": record.bytes, "bytes_out": size, "pixels": record.pixels, "tiles": record.tiles}
        line = {"request_id": record.request_id, "status": status, "outcome": outcome, **known, **stages}
        logger.info("%s", json.dumps(line))

    def add(self, name: str, value: float, *labels: str) -> None:
        """Adds a value to a counter, or to the values of a histogram."""
        self.metrics[name].add_or_update(value, [*self.model, *labels])
