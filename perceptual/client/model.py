"""A model as TorchServe describes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..naming import ModelVersion


@dataclass(frozen=True)
class Worker:
    """A worker process of a model.

    Attributes:
        pid: Its process id; -1 while there is no process.
        ready: Whether it has loaded the model.
        device: ``CPU``, or ``GPU 0`` and so on.
        memory: Its resident memory in bytes, measured within the last minute; None if not known.
    """

    pid: int
    ready: bool
    device: str = "CPU"
    memory: int | None = None

    @classmethod
    def parse(cls, described: Mapping[str, Any]) -> "Worker":
        """Parses TorchServe's description, which names the GPU only in the text from nvidia-smi."""
        device = described["gpuUsage"].split()[0].replace("gpuId::", "GPU ") if described["gpu"] else "CPU"
        return cls(described["pid"], described["status"] == "READY", device, described["memoryUsage"] or None)


@dataclass(frozen=True)
class Model:
    """A registered version of a model.

    Attributes:
        name: Name of the model.
        version: This version.
        wanted: Number of workers it should have.
        workers: The workers it has.
        archive: File name in the model store.
        waiting: Requests in the queue.
        queue_size: Requests that the queue can hold.
        batch_size: Maximum number of requests in one batch.
        batch_delay: Milliseconds that a batch waits for more requests.
        response_timeout: Seconds that a worker may take for a batch.
        on_gpu: Whether the workers are on GPUs.
        gpus: The GPUs that its archive names; empty if it may use all.
        description: TorchServe's whole description.
    """

    name: str
    version: str
    wanted: int = 1
    workers: tuple[Worker, ...] = ()
    archive: str = ""
    waiting: int = 0
    queue_size: int = 100
    batch_size: int = 1
    batch_delay: int = 0
    response_timeout: float = 120.0
    on_gpu: bool = False
    gpus: tuple[int, ...] = ()
    description: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def parse(cls, described: Mapping[str, Any]) -> "Model":
        """Parses TorchServe's description."""
        queue = described["jobQueueStatus"]
        return cls(
            name=described["modelName"],
            version=described["modelVersion"],
            wanted=described["minWorkers"],
            workers=tuple(map(Worker.parse, described["workers"])),
            archive=described["modelUrl"],
            waiting=queue["pendingRequests"],
            queue_size=queue["pendingRequests"] + queue["remainingCapacity"],
            batch_size=described["batchSize"],
            batch_delay=described["maxBatchDelay"],
            response_timeout=described["responseTimeout"],
            on_gpu=described["deviceType"] == "gpu",
            gpus=tuple(described.get("deviceIds") or ()),
            description=described,
        )

    @property
    def id(self) -> ModelVersion:
        """Name and version."""
        return ModelVersion(self.name, self.version)

    @property
    def ready(self) -> tuple[Worker, ...]:
        """The workers that have loaded it."""
        return tuple(worker for worker in self.workers if worker.ready)
