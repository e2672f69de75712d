"""What a running server is doing: its workers, and what its models' requests have cost."""

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

BEYOND = 10.0  # seconds; where TorchServe's last bucket ends

Buckets = Sequence[tuple[float, float]]  # upper bound and cumulative count


@dataclass(frozen=True)
class ModelStatus:
    """A version of a model: its workers, and sums since the server started."""

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
        """Whether it answers; a model that was scaled to no worker is not meant to."""
        return self.wanted == 0 or any(worker.ready for worker in self.workers)

    @property
    def idle(self) -> bool:
        """Whether it has answered all requests that it was given."""
        return self.waiting == 0 and self.begun <= sum(self.replies.values())


@dataclass(frozen=True)
class Status:
    """A server's models, and what its ``/ping`` says, which is Healthy even without a ready worker."""

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
        """The models that should answer and do not."""
        return [f"{model.name} {model.version}" for model in self.models if not model.healthy]


def read_status(server: ServerAddress) -> Status:
    """Asks a server's management, metrics and inference APIs.

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
    if isinstance(server, RunningServer):  # this machine knows more than TorchServe says
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
    """What TorchServe's description of a version, the metrics and the supervisor's notes say together."""
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
    """A model of this machine, with the memory that its workers have resident just now."""
    return replace(model, workers=tuple(map(measured, model.workers)))


def measured(worker: Worker) -> Worker:
    """A worker of this machine, with the memory that it has resident just now."""
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
    """Picks the handlers' metrics out of what Prometheus would read."""
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
    """A quantile of a histogram, interpolated within its bucket as Prometheus does; the unit is the buckets'.

    It is infinite if it lies beyond the last bucket that has an end.
    """
    rank = share * buckets[-1][1]
    below, before = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank and count > before:
            return bound if bound == float("inf") else below + (bound - below) * (rank - before) / (count - before)
        below, before = bound, count
    return float("nan")
