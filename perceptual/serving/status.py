"""Status of a running server: workers, requests, and how long the stages of requests take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from ..client.addresses import RunningServer, ServerAddress
from ..client.connection import Client
from ..client.model import Model, Worker
from ..errors import ServerError
from .snapshots import read_held

STAGES = ("wait", "decode", "infer", "match", "encode")  # of a request, in their order

BEYOND = 10.0  # seconds; the upper bound of the last finite bucket of TorchServe's histograms

Buckets = Sequence[tuple[float, float]]  # upper bound and cumulative count


@dataclass(frozen=True)
class ModelStatus:
    """A version of a model: its workers, and counts since the server started.

    Attributes:
        wanted: Number of workers it should have.
        waiting: Requests in TorchServe's queue.
        begun: Requests that its handler has received.
        replies: Number of replies by outcome: ``ok`` or the name of an error.
        stages: Median and 95th percentile of each stage, in seconds.
    """

    name: str
    version: str
    wanted: int
    waiting: int
    workers: list[Worker]
    begun: int = 0
    replies: dict[str, int] = field(default_factory=dict)
    stages: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """Whether a worker is ready, or it is scaled to zero workers, so that none is expected."""
        return self.wanted == 0 or any(worker.ready for worker in self.workers)

    @property
    def idle(self) -> bool:
        """Whether it has answered all requests it has received."""
        return self.waiting == 0 and self.begun <= sum(self.replies.values())


@dataclass(frozen=True)
class Status:
    """A server's models, and the reply to ``/ping``, which is Healthy even without a ready worker."""

    models: list[ModelStatus]
    ping: str

    def find(self, name: str, version: str) -> ModelStatus:
        """One of the models. Raises ServerError if there is none."""
        for model in self.models:
            if (model.name, model.version) == (name, version):
                return model
        raise ServerError(f"{name} {version} is not registered")

    @property
    def unhealthy(self) -> list[str]:
        """Names and versions of the models that are not healthy."""
        return [f"{model.name} {model.version}" for model in self.models if not model.healthy]


def read_status(server: ServerAddress) -> Status:
    """Reads the status from a server's management, metrics and inference APIs.

    Raises:
        ServerError: It does not answer.
    """
    with server.management(timeout=5.0) as management:
        models = management.every_version()
    metrics = ask_for_metrics(server.metrics_url) if server.metrics_url else Metrics({}, {}, {})
    with server.inference(timeout=5.0) as inference:
        try:
            ping = inference.send("GET", "/ping").json()["status"]
        except ServerError as error:
            ping = str(error)
    held: dict[str, int] = {}
    if isinstance(server, RunningServer):  # on this machine, more can be read than TorchServe reports
        held = read_held(Path(server.snapshots))
        models = [measured_here(each) for each in models]
    return Status([model_status(each, metrics, held) for each in models], ping)


def ask_for_metrics(url: str) -> "Metrics":
    """The handlers' metrics from an address. Raises ServerError if it does not answer."""
    with Client(url, timeout=5.0) as client:
        try:
            return read_metrics(client.send("GET", "/metrics").text)
        except ServerError as error:
            raise ServerError(f"cannot read the server's metrics: {error}") from error


def model_status(model: Model, metrics: "Metrics", held: Mapping[str, int]) -> ModelStatus:
    """The status of a version, from TorchServe's description, the metrics, and the models held back."""
    buckets = metrics.buckets.get(model.id, {})
    return ModelStatus(
        *model.id,
        wanted=model.wanted or held.get(model.id.path, 0),
        waiting=model.waiting,
        workers=[*model.workers],
        begun=metrics.begun.get(model.id, 0),
        replies=metrics.replies.get(model.id, {}),
        stages={
            stage: (quantile(0.5, buckets[stage]), quantile(0.95, buckets[stage]))
            for stage in STAGES
            if stage in buckets
        },
    )


def measured_here(model: Model) -> Model:
    """A model of this machine, with the current resident memory of its workers."""
    return replace(model, workers=tuple(map(measured, model.workers)))


def measured(worker: Worker) -> Worker:
    """A worker of this machine, with its current resident memory."""
    try:
        return replace(worker, memory=psutil.Process(worker.pid).memory_info().rss)
    except (psutil.Error, ValueError):  # ValueError: the process id is -1
        return replace(worker, memory=None)


@dataclass(frozen=True)
class Metrics:
    """The handlers' metrics, by name and version of the model."""

    begun: dict[tuple[str, str], int]
    replies: dict[tuple[str, str], dict[str, int]]
    buckets: dict[tuple[str, str], dict[str, Buckets]]


def read_metrics(text: str) -> Metrics:
    """Parses the handlers' metrics out of Prometheus's text format."""
    metrics = Metrics({}, {}, {})
    for sample in (sample for family in text_string_to_metric_families(text) for sample in family.samples):
        model = sample.labels.get("ModelName", ""), sample.labels.get("ModelVersion", "")
        if sample.name == "perceptual_requests_total":
            metrics.begun[model] = int(sample.value)
        elif sample.name == "perceptual_reply_seconds_count":
            metrics.replies.setdefault(model, {})[sample.labels["Outcome"]] = int(sample.value)
        elif sample.name == "perceptual_stage_seconds_bucket":
            stages = metrics.buckets.setdefault(model, {})
            bound = float(sample.labels["le"])
            stages[sample.labels["Stage"]] = [*stages.get(sample.labels["Stage"], []), (bound, sample.value)]
    return metrics


def quantile(share: float, buckets: Buckets) -> float:
    """A quantile of a histogram, in the unit of its buckets, interpolated within a bucket as Prometheus does.

    It is infinite if it lies above the last finite bound.
    """
    rank = share * buckets[-1][1]
    below, before = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank and count > before:
            return bound if bound == float("inf") else below + (bound - below) * (rank - before) / (count - before)
        below, before = bound, count
    return float("nan")
