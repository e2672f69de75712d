"""Queues of requests that wait for a worker; TorchServe's own queues would run requests whose client has gone.

Each model has a queue. It forwards twice as many requests as the workers process at the same time, which keeps them
busy. The others wait here in order, and are removed if their client disconnects.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import quote

from aiohttp import web

from ...client.model import Model
from .counters import Counters
from .replies import unavailable
from .torchserve import TorchServe

FRESH = 1.0  # seconds after which the number of workers is requested again from TorchServe
QUEUE = 64  # requests that may wait while the number of workers is not known; job_queue_size in config.properties
RESPONSE_TIMEOUT = 600.0  # seconds for a reply while the model's own limit is not known

# Paths by which TorchServe reaches a model or a version of it, besides /invocations.
MODEL_PATHS = [
    re.compile(pattern)
    for pattern in (
        r"/(?:predictions|explanations)/([^/]+)(?:/([^/]+))?(?:/.*)?",
        r"/models/([^/]+)/invoke",
        r"/v1/models/([^/:]+):(?:predict|explain)",
        r"/v2/models/([^/]+)/(?:infer|explain)",
        r"/([^/]+)(?:/([^/]+))?/predict",
    )
]


class Queue:
    """The queue of a model, or of a version of it.

    Attributes:
        model: ``NAME`` or ``NAME/VERSION``.
        capacity: Maximum number of running requests.
        longest: Maximum number of running and waiting requests.
        timeout: Seconds after which TorchServe ends a worker that does not reply.
        described: The model as TorchServe described it last; None if never.
        known_at: When TorchServe last described the model, in seconds of time.monotonic; 0 if never.
        closed: Whether new requests are refused.
        running: Requests that were forwarded to TorchServe.
        waiting: The futures of waiting requests.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.capacity = 2
        self.longest = QUEUE + 1
        self.timeout = RESPONSE_TIMEOUT
        self.described: Model | None = None
        self.known_at = 0.0
        self.closed = False
        self.running = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    def update(self, model: Model) -> None:
        """Sets the limits to those of the model as it is now."""
        parallel = max(1, len(model.workers)) * model.batch_size
        self.capacity = 2 * parallel
        self.longest = parallel + model.queue_size
        self.timeout = float(model.response_timeout)
        self.described = model
        self.known_at = time.monotonic()
        self.advance()

    def advance(self) -> None:
        """Forwards waiting requests, within the capacity."""
        while self.waiting and self.running < self.capacity:
            turn = self.waiting.popleft()
            if not turn.done():
                self.running += 1
                turn.set_result(None)

    async def enter(self) -> None:
        """Waits for a request's turn. Raises a refusal if the queue is full or closed."""
        if self.closed:
            raise unavailable("unregistering", f"{self.model} is being unregistered")
        if self.running + len(self.waiting) >= self.longest:
            raise unavailable("queue", "the queue of this model is full")
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        self.advance()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            else:
                with suppress(ValueError):  # advance() has just removed it
                    self.waiting.remove(turn)
            raise

    def leave(self) -> None:
        """Counts a request as done, and forwards the next."""
        self.running -= 1
        self.advance()

    @property
    def empty(self) -> bool:
        """Whether no request is running or waiting."""
        return not self.running and not self.waiting


class Queues:
    """The queues of all models that were requested."""

    def __init__(self, torchserve: TorchServe, counters: Counters) -> None:
        self.torchserve = torchserve
        self.counters = counters
        self.by_model: dict[str, Queue] = {}
        self.first: dict[str, asyncio.Task[Queue | None]] = {}  # descriptions of models requested for the first time

    @asynccontextmanager
    async def turn(self, path: str) -> AsyncIterator[float]:
        """Waits for a request's turn in the queue of its model.

        Args:
            path: From :func:`prediction_path`.

        Yields:
            Seconds within which a worker must reply. A request to a model that is not registered does not wait.
        """
        queue = await self.queue_of(path.removeprefix("/predictions/")) if path.startswith("/predictions/") else None
        if queue is None:
            yield RESPONSE_TIMEOUT
            return
        with self.counters.waiting.labels(queue.model).track_inprogress():
            await queue.enter()
        try:
            yield queue.timeout
        finally:
            queue.leave()

    def described(self, path: str) -> Model | None:
        """The model of a path, from :func:`prediction_path`, as TorchServe described it last; None if not known."""
        queue = self.by_model.get(path.removeprefix("/predictions/"))
        return queue.described if queue else None

    async def queue_of(self, model: str) -> Queue | None:
        """The queue of a model; None if the model is not registered."""
        if (queue := self.by_model.get(model)) is None:
            # One description for all first requests: a burst would fill TorchServe's management API, and those of its
            # requests whose description failed would pass the queue.
            if model not in self.first:
                self.first[model] = asyncio.create_task(self.describe(model))
            return await asyncio.shield(self.first[model])
        if time.monotonic() > queue.known_at + FRESH:
            await self.update(queue)
        return queue if queue.known_at else None

    async def describe(self, model: str) -> Queue | None:
        """A new queue for a model that TorchServe knows."""
        try:
            queue = Queue(model)
            await self.update(queue)
            return self.by_model.setdefault(model, queue) if queue.known_at else None
        finally:
            del self.first[model]

    async def update(self, queue: Queue) -> None:
        """Sets a queue's limits from TorchServe's description of its model."""
        queue.known_at = queue.known_at and time.monotonic()  # so that other requests do not update at the same time
        for model in await self.torchserve.describe(quote(queue.model)):
            queue.update(model)

    async def renew(self, name: str) -> None:
        """Updates the queues of a model that was changed, and removes those of versions that were unregistered."""
        for model, queue in list(self.by_model.items()):
            if model.split("/")[0] == name:
                queue.known_at = 0.0
                await self.update(queue)
                if not queue.known_at and queue.empty:
                    del self.by_model[model]


def prediction_path(request: web.BaseRequest) -> str:
    """A request's path; ``/predictions/NAME[/VERSION]`` for all paths by which TorchServe reaches that model."""
    path = request.path.rstrip("/")
    if path == "/invocations":
        return f"/predictions/{request.query.get('model_name', '')}"
    for form in MODEL_PATHS:
        if found := form.fullmatch(path):
            return "/".join(["/predictions", *filter(None, found.groups())])
    return path
