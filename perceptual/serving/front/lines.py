"""Where requests wait for a worker: here rather than in TorchServe, which runs even what nobody waits for any more.

Of each model as many requests go on as keep its workers busy: what they work on, and as many again. The others wait
here, in their order, and leave as soon as their client does.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote

from aiohttp import web

from .counters import Counters
from .replies import unavailable
from .torchserve import TorchServe

FRESH = 1.0  # seconds for which it is taken for known how many workers a model has
QUEUE = 64  # requests that may wait while that is not known; TorchServe's job_queue_size here
RESPONSE_TIMEOUT = 600.0  # seconds for a reply while that is not known

# What TorchServe takes for a request to a model, or to its version, besides /invocations.
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


class Line:
    """The requests for a model, or for a version of it."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.capacity = 2
        self.longest = QUEUE + 1
        self.timeout = RESPONSE_TIMEOUT
        self.known_at = 0.0
        self.closed = False
        self.running = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    def learn(self, described: dict[str, Any]) -> None:
        """Takes over how many requests a model's workers take, from its description."""
        at_once = max(1, len(described["workers"])) * described["batchSize"]
        queue = described["jobQueueStatus"]
        self.capacity = 2 * at_once
        self.longest = at_once + queue["pendingRequests"] + queue["remainingCapacity"]
        self.timeout = float(described["responseTimeout"])
        self.known_at = time.monotonic()
        self.advance()

    def advance(self) -> None:
        """Lets go on what there is room for."""
        while self.waiting and self.running < self.capacity:
            turn = self.waiting.popleft()
            if not turn.done():
                self.running += 1
                turn.set_result(None)

    async def enter(self) -> None:
        """Waits for its turn. Raises a refusal where too many do, or the model is about to go."""
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
                with suppress(ValueError):  # advance() has just passed over it
                    self.waiting.remove(turn)
            raise

    def leave(self) -> None:
        """Makes room for the next."""
        self.running -= 1
        self.advance()

    @property
    def empty(self) -> bool:
        """Whether no request is in work or waits."""
        return not self.running and not self.waiting


class Lines:
    """The lines of all models that were asked for."""

    def __init__(self, torchserve: TorchServe, counters: Counters) -> None:
        self.torchserve = torchserve
        self.counters = counters
        self.lines: dict[str, Line] = {}

    @asynccontextmanager
    async def turn(self, path: str) -> AsyncIterator[float]:
        """Waits until the workers of the model that a path is for can take one more request.

        Args:
            path: As :func:`asked_for` gives it.

        Yields:
            The seconds in which a worker has to reply. What is no request to a registered model need not wait.
        """
        line = await self.line_of(path.removeprefix("/predictions/")) if path.startswith("/predictions/") else None
        if line is None:
            yield RESPONSE_TIMEOUT
            return
        with self.counters.waiting.labels(line.model).track_inprogress():
            await line.enter()
        try:
            yield line.timeout
        finally:
            line.leave()

    async def line_of(self, model: str) -> Line | None:
        """The line for a model, if it is registered."""
        line = self.lines.get(model) or Line(model)
        if time.monotonic() > line.known_at + FRESH:
            await self.learn(line)
        return self.lines.setdefault(model, line) if line.known_at else None

    async def learn(self, line: Line) -> None:
        """Asks TorchServe about the model of a line."""
        line.known_at = line.known_at and time.monotonic()  # the others need not ask at the same time
        if described := await self.torchserve.ask(f"/models/{quote(line.model)}"):
            line.learn(described[0])

    async def renew(self, name: str) -> None:
        """Asks again about a model that was scaled or got another default version; forgets what has gone."""
        for model, line in list(self.lines.items()):
            if model.split("/")[0] == name:
                line.known_at = 0.0
                await self.learn(line)
                if not line.known_at and line.empty:
                    del self.lines[model]


def asked_for(request: web.BaseRequest) -> str:
    """The path that a request is for, in the one form of the several that TorchServe takes for the same model."""
    path = request.path.rstrip("/")
    if path == "/invocations":
        return f"/predictions/{request.query.get('model_name', '')}"
    for form in MODEL_PATHS:
        if found := form.fullmatch(path):
            return "/".join(["/predictions", *filter(None, found.groups())])
    return path
