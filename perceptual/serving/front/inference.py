"""The inference API: forwards requests to TorchServe, and tries a request once more if it ends a worker."""

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakSet

from aiohttp import ClientError, ClientResponse, web

from .bodies import Bodies, Body
from .counters import Counters
from .forms import bad_form, prepare
from .health import Health
from .journal import KEY, Entry, Journal
from .queues import Queues, prediction_path
from .replies import RETRY_AFTER, Refusal, unavailable
from .torchserve import Gone, TorchServe, passed, unanswered

BAD_FORM = (b"ErrorDataDecoderException", b"NullPointerException")  # TorchServe's 500 for a form it cannot parse
NO_WORKER = b"has no worker to serve inference request"  # TorchServe's message also if the queue is full
DIED = "Worker died."  # TorchServe's message if a worker died during the request, with status 500, 507 or others

logger = logging.getLogger(__name__)


class Inference:
    """The inference API.

    Args:
        check: Raises a refusal unless a request is authorized; None allows every request.
    """

    def __init__(
        self,
        torchserve: TorchServe,
        check: Callable[[web.Request], None] | None,
        bodies: Bodies,
        queues: Queues,
        journal: Journal,
        counters: Counters,
        health: Health,
    ) -> None:
        self.torchserve = torchserve
        self.check = check
        self.bodies = bodies
        self.queues = queues
        self.journal = journal
        self.counters = counters
        self.health = health
        self.waiting: dict[asyncio.Task[Any], str] = {}  # the path of each request that waits for its reply
        self.refused: WeakSet[asyncio.Task[Any]] = WeakSet()  # requests that end_wait() has cancelled
        self.due: dict[str, float] = {}  # when to try a path again, in seconds of time.monotonic

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answers one request, with TorchServe's reply or a refusal."""
        if self.check and request.path != "/ping":
            self.check(request)
        entry: Entry = request[KEY]
        headers = passed(request.headers)
        for secret in ("Authorization", "Cookie"):
            headers.popall(secret, None)
        headers["X-Request-ID"] = entry.id
        # The worker measures the waiting time from it; a client's clock may differ from ours.
        headers["X-Request-Start"] = f"t={time.time():.3f}"
        with self.bodies.received() as body:
            await self.bodies.receive(request, body)
            if len(body):
                self.journal.begin(entry, len(body), body.head(4))
            prepare(body, headers)
            try:
                async with self.refusable(request), self.queues.turn(prediction_path(request)) as limit:
                    reply, text = await self.ask(request, headers, body, limit)
            except Gone as error:
                raise unanswered(error) from error
        async with reply:
            if text is None:
                return await self.pass_back(reply, request)
            return self.error_reply(reply, text, request)

    async def ask(
        self, request: web.Request, headers: Any, body: Body, limit: float
    ) -> tuple[ClientResponse, bytes | None]:
        """TorchServe's reply, and its text if it is an error. If a worker died, the request is tried once more.

        It is not tried again if TorchServe may have ended the worker for taking too long, which gives the same message.

        Args:
            request: As received.
            headers: To send.
            body: To send.
            limit: Seconds after which TorchServe ends a worker that does not reply.
        """
        begin = time.monotonic()
        reply, text = await self.ask_once(request, headers, body)
        if not died(text):
            return reply, text
        self.note_death(request, "trying it once more")
        if time.monotonic() - begin >= limit:
            raise self.hopeless(request, f"no reply within {limit:g} s: the worker was ended")
        try:
            reply, text = await self.ask_once(request, headers, body)
        except Gone:
            raise self.hopeless(request, "a worker died during this request, and then TorchServe ended") from None
        if died(text):
            self.note_death(request, "giving it up")
            raise self.hopeless(request, "two workers died during this request; a smaller picture may work (max-size)")
        return reply, text

    async def ask_once(self, request: web.Request, headers: Any, body: Body) -> tuple[ClientResponse, bytes | None]:
        """One attempt."""
        # TorchServe treats them alike, but aiohttp retries a PUT by itself.
        method = "POST" if request.method == "PUT" else request.method
        reply = await self.torchserve.send("inference", method, request.rel_url.raw_path_qs, headers, body)
        try:
            return reply, None if reply.status == 200 else await reply.read()
        except (ClientError, OSError) as error:
            raise Gone(str(error)) from error

    def note_death(self, request: web.Request, action: str) -> None:
        """Counts and logs the death of a worker; for a batch, each request is logged."""
        model = prediction_path(request).removeprefix("/predictions/")
        self.counters.deaths.labels(model).inc()
        logger.error("a worker of %s died during %s; %s", model, request[KEY], action)

    def hopeless(self, request: web.Request, message: str) -> Refusal:
        """The reply to a request that must not be tried again: not 503, after which nginx would try another server."""
        return Refusal(500, "worker_died", f"{message}; request {request[KEY].id}", error="WorkerDied")

    @asynccontextmanager
    async def refusable(self, request: web.Request) -> AsyncIterator[None]:
        """While the request waits for its reply, :meth:`end_wait` can refuse it."""
        task = asyncio.current_task()
        assert task
        self.waiting[task] = prediction_path(request)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self.refused:
                raise  # the client has gone
            message = "the model was removed or scaled to none, or its workers keep dying"
            raise unavailable("held", message, self.retry_after(request)) from None
        finally:
            del self.waiting[task]

    async def pass_back(self, reply: ClientResponse, request: web.Request) -> web.StreamResponse:
        """Streams a reply to the client."""
        response = web.StreamResponse(headers=passed(reply.headers))
        response.headers["X-Request-ID"] = request[KEY].id
        await response.prepare(request)
        async for piece in reply.content.iter_any():
            await response.write(piece)
        await response.write_eof()
        return response

    def error_reply(self, reply: ClientResponse, text: bytes, request: web.Request) -> web.Response:
        """The client's reply to an error of TorchServe or of a handler. Raises a refusal for some of TorchServe's."""
        if reply.status == 500 and any(kind in text for kind in BAD_FORM):
            raise bad_form("TorchServe cannot read it")
        if reply.status == 503 and NO_WORKER in text:
            raise self.without_worker(request)
        headers = passed(reply.headers)
        headers.popall("X-Request-ID", None)
        if reply.status == 503:
            headers["Retry-After"] = str(self.retry_after(request))
        return web.Response(status=reply.status, reason=reply.reason, headers=headers, body=text)

    def without_worker(self, request: web.Request) -> Refusal:
        """The reply to a request for which TorchServe has no worker, or no place in its queue."""
        model, seconds = self.queues.described(prediction_path(request)), self.retry_after(request)
        if model is None or model.wanted:
            return unavailable("queue", "the queue of this model is full, or it has no workers", seconds)
        if model.id.path in self.health.held:
            return unavailable("held", "the workers of this model keep dying", seconds)
        resume = f"perceptual models scale {model.name} --version {model.version} --workers 1"
        message = f"this model is paused: it was scaled to no workers; to resume it: {resume}"
        return Refusal(503, "paused", message, retry_after=seconds, error="ModelPaused")

    def retry_after(self, request: web.BaseRequest) -> int:
        """Whole seconds for ``Retry-After``."""
        due = self.due.get(prediction_path(request), 0.0)
        return max(RETRY_AFTER, math.ceil(due - time.monotonic()))

    def end_wait(self, path: str) -> None:
        """Refuses all requests that wait for a path."""
        tasks = {task for task, waiting_path in self.waiting.items() if waiting_path == path}
        self.refused |= tasks
        for task in tasks:
            task.cancel()


def died(text: bytes | None) -> bool:
    """Whether TorchServe reports the death of a worker; other replies may have its words in them, from the request."""
    try:
        reply = json.loads(text or b"")
    except ValueError:
        return False
    return isinstance(reply, dict) and "error" not in reply and reply.get("message") == DIED
