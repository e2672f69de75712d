"""Requests for pictures: passed on to TorchServe, one more time if a worker dies of them."""

import asyncio
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
from .journal import KEY, Entry, Journal
from .lines import Lines, asked_for
from .replies import RETRY_AFTER, Refusal, unavailable
from .torchserve import Gone, TorchServe, passed, unanswered

BAD_FORM = (b"ErrorDataDecoderException", b"NullPointerException")  # TorchServe's 500 for a form it cannot parse
NO_WORKER = b"has no worker to serve inference request"  # TorchServe's words for a full queue, too
DIED = b"Worker died."  # its words to whom a worker has died, with status 500, 507 or others

logger = logging.getLogger(__name__)


class Inference:
    """The inference API.

    Args:
        check: Raises a refusal of whom it does not let in; None lets everyone in.
    """

    def __init__(
        self,
        torchserve: TorchServe,
        check: Callable[[web.Request], None] | None,
        bodies: Bodies,
        lines: Lines,
        journal: Journal,
        counters: Counters,
    ) -> None:
        self.torchserve = torchserve
        self.check = check
        self.bodies = bodies
        self.lines = lines
        self.journal = journal
        self.counters = counters
        self.waiting: dict[asyncio.Task[Any], str] = {}  # the path that each request is for
        self.refused: WeakSet[asyncio.Task[Any]] = WeakSet()  # of those, the ones told that it is no use
        self.due: dict[str, float] = {}  # when to ask for a path again, in the seconds of time.monotonic

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answers one request: by TorchServe, or in its stead."""
        if self.check and request.path != "/ping":
            self.check(request)
        entry: Entry = request[KEY]
        headers = passed(request.headers)
        for secret in ("Authorization", "Cookie"):
            headers.popall(secret, None)
        headers["X-Request-ID"] = entry.id
        headers.setdefault("X-Request-Start", f"t={time.time():.3f}")  # from which the worker tells the wait
        with self.bodies.received() as body:
            await self.bodies.receive(request, body)
            if len(body):
                self.journal.begin(entry, len(body), body.head(4))
            prepare(body, headers)
            try:
                async with self.counted_as_waiting(request), self.lines.turn(asked_for(request)) as limit:
                    reply, text = await self.ask(request, headers, body, limit)
            except Gone as error:
                raise unanswered(error) from error
        async with reply:
            if text is None:
                return await self.pass_back(reply, request)
            return self.told(reply, text, request)

    async def ask(
        self, request: web.Request, headers: Any, body: Body, limit: float
    ) -> tuple[ClientResponse, bytes | None]:
        """TorchServe's reply, and what it says if it is an error: a worker's death is tried once more.

        Not if it may be the end of a worker that took too long, which TorchServe reports in the same words.
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
            raise self.hopeless(request, "a worker died of this request, and then TorchServe ended") from None
        if died(text):
            self.note_death(request, "giving it up")
            raise self.hopeless(request, "two workers died of this request; a smaller picture may do (max-size)")
        return reply, text

    async def ask_once(self, request: web.Request, headers: Any, body: Body) -> tuple[ClientResponse, bytes | None]:
        """One attempt."""
        # The same to TorchServe, but aiohttp would by itself send a PUT twice.
        method = "POST" if request.method == "PUT" else request.method
        reply = await self.torchserve.send("inference", method, request.rel_url.raw_path_qs, headers, body)
        try:
            return reply, None if reply.status == 200 else await reply.read()
        except (ClientError, OSError) as error:
            raise Gone(str(error)) from error

    def note_death(self, request: web.Request, what_now: str) -> None:
        """Tells of which request a worker died: with batches, of one of those that died together."""
        model = asked_for(request).removeprefix("/predictions/")
        self.counters.deaths.labels(model).inc()
        logger.error("a worker of %s died at %s; %s", model, request[KEY], what_now)

    def hopeless(self, request: web.Request, message: str) -> Refusal:
        """The reply to what is not tried again, by nobody: no 503, which nginx would pass to another server."""
        return Refusal(500, "worker_died", f"{message}; request {request[KEY].id}", error="WorkerDied")

    @asynccontextmanager
    async def counted_as_waiting(self, request: web.Request) -> AsyncIterator[None]:
        """Until the reply begins, a request can be refused."""
        task = asyncio.current_task()
        assert task
        self.waiting[task] = asked_for(request)
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
        """Passes on a reply piece by piece: it may be a large picture."""
        response = web.StreamResponse(headers=passed(reply.headers))
        response.headers["X-Request-ID"] = request[KEY].id
        await response.prepare(request)
        async for piece in reply.content.iter_any():
            await response.write(piece)
        await response.write_eof()
        return response

    def told(self, reply: ClientResponse, text: bytes, request: web.Request) -> web.Response:
        """What a client is told where TorchServe or a handler refuses."""
        if reply.status == 500 and any(kind in text for kind in BAD_FORM):
            raise bad_form("TorchServe cannot read it")
        if reply.status == 503 and NO_WORKER in text:
            message = "the queue of this model is full, or it has no workers"
            raise unavailable("queue", message, self.retry_after(request))
        headers = passed(reply.headers)
        headers.popall("X-Request-ID", None)
        if reply.status == 503:
            headers["Retry-After"] = str(self.retry_after(request))
        return web.Response(status=reply.status, reason=reply.reason, headers=headers, body=text)

    def retry_after(self, request: web.BaseRequest) -> int:
        """Whole seconds after which to ask again."""
        due = self.due.get(asked_for(request), 0.0)
        return max(RETRY_AFTER, math.ceil(due - time.monotonic()))

    def end_wait(self, path: str) -> None:
        """Refuses all requests that wait for a path."""
        tasks = {task for task, wanted in self.waiting.items() if wanted == path}
        self.refused |= tasks
        for task in tasks:
            task.cancel()


def died(text: bytes | None) -> bool:
    """Whether TorchServe reports the death of a worker."""
    return text is not None and DIED in text
