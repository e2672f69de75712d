"""A reverse proxy in front of TorchServe: it authenticates, limits and queues requests, and survives restarts.

=================  ======================================================================
``connections``    limits on the number of connections, and on idle and slow ones
``access``         tokens
``visitors``       keys and cookies for the page
``page, about``    the page, and the data it shows
``bodies, forms``  request bodies, within limits of size and time
``queues``         queues of requests that wait for a worker
``inference``      the inference API; if a request ends a worker, it is tried once more
``management``     the management API
``counters``       metrics for Prometheus
``health``         readiness and liveness, for Kubernetes and load balancers
``journal``        the log of requests
``torchserve``     the client of TorchServe's sockets
=================  ======================================================================

:meth:`Front.applications` has the routes; all other requests go to TorchServe.
"""

import asyncio
import logging
import re
import threading
import time
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from aiohttp import ClientError, web

from ...errors import ServerError
from .access import Access
from .bodies import Bodies
from .connections import HEADERS, IDLE, LINE, Connections
from .counters import Counters
from .health import Health
from .inference import Inference
from .journal import KEY, Entry, Journal, server_logger
from .management import Management
from .page import Page, PageSettings
from .queues import Queues, prediction_path
from .replies import Refusal
from .torchserve import Gone, TorchServe

DRAIN = 25.0  # seconds for running requests when the front stops; Kubernetes, by default, allows 30 for everything
RESPONSE = 5.0  # seconds within which the thread must run a task

T = TypeVar("T")

logger = logging.getLogger(__name__)

Address = int | Path  # a port of the loopback address, or a socket


class Front:
    """Serves TorchServe's inference, management and metrics APIs, from a thread of its own.

    Every 503 has a ``Retry-After`` header, also those of TorchServe. The front itself replies 503 while TorchServe is
    not running, if TorchServe dies during a request, and to requests that wait for a model that is held back. If a
    request ends a worker, it is tried once more; if it ends another, the reply is 500 with the error ``WorkerDied``.

    Args:
        inference: Where to serve the inference API.
        management: Where to serve the management API; at a socket, for this user alone.
        metrics: Where to serve the metrics.
        torchserve: The folder with TorchServe's sockets ``inference.sock``, ``management.sock``, ``metrics.sock`` and
            its key file.
        folder: For the key file ``key_file.json``, large bodies, and the log of requests in its folder ``logs``, where
            TorchServe writes its snapshots to ``config``.
        largest: Maximum size of a request body, in bytes; the reply to a larger one is 413.
        tokens: Whether requests for predictions need a token; those of the management API always do.
        page: Settings of the page; None for no page.
        drain: Seconds that running requests may take when the front stops.
    """

    def __init__(
        self,
        inference: Address,
        management: Address,
        metrics: Address,
        *,
        torchserve: Path,
        folder: Path,
        largest: int,
        tokens: bool = True,
        page: PageSettings | None = None,
        drain: float = DRAIN,
    ) -> None:
        self.drain = drain
        self.addresses = (inference, management, metrics)
        self.backend = TorchServe(torchserve)
        self.counters = Counters()
        self.health = Health(self.backend)
        self.access = Access(folder / "key_file.json")
        self.journal = Journal(folder / "logs")
        self.bodies = Bodies(folder, largest)
        self.queues = Queues(self.backend, self.counters)
        self.page = Page(self.backend, page, largest, tokens) if page else None
        self.inference = Inference(
            self.backend,
            self.check if tokens else None,
            self.bodies,
            self.queues,
            self.journal,
            self.counters,
            self.health,
        )
        snapshots = folder / "logs" / "config"
        self.management = Management(
            self.backend, self.access, self.bodies, self.queues, self.inference, self.page, snapshots
        )

    def start(self) -> None:
        """Starts the thread and listens. Raises ServerError if an address cannot be used."""
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="front", daemon=True)
        self.thread.start()
        self.runners: list[web.AppRunner] = []
        self.listeners: list[asyncio.Server] = []
        try:
            self.run(self.listen())
        except OSError as error:
            self.stop()
            raise ServerError(f"cannot listen at {self.at}: {error.strerror or error}") from error

    def stop(self) -> None:
        """Stops listening, gives running requests ``drain`` seconds, and closes all connections."""
        self.run(self.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        self.journal.close()

    def check(self, request: web.Request) -> None:
        """Raises a refusal unless a request has a token, or is a request for a prediction from the page."""
        for_picture = "Authorization" not in request.headers and prediction_path(request).startswith("/predictions/")
        if not (self.page and for_picture and self.page.let_in(request)):
            self.access.check(request, "inference")

    def refuse(self, path: str, seconds: float) -> None:
        """Refuses the requests that wait for a path, with ``Retry-After`` for them and for later refusals.

        TorchServe decides whether later requests are refused.

        Args:
            path: ``/predictions/NAME`` or ``/predictions/NAME/VERSION``, as from :func:`.queues.prediction_path`.
            seconds: Until the model is tried again.
        """
        self.inference.due[path] = time.monotonic() + seconds
        self.loop.call_soon_threadsafe(self.inference.end_wait, path)

    def readmit(self, *paths: str) -> None:
        """Ends what :meth:`refuse` set for paths: later refusals have the usual ``Retry-After``."""
        for path in paths:
            self.inference.due.pop(path, None)

    def responds(self) -> bool:
        """Whether its thread runs a task within :data:`RESPONSE` seconds."""
        future = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self.loop)
        try:
            future.result(RESPONSE)
        except TimeoutError:
            return False
        return True

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the front's thread and returns its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def applications(self) -> list[web.Application]:
        """The applications at the three addresses: inference, management and metrics."""
        inference, management, metrics = (web.Application(middlewares=[self.observe]) for _ in range(3))
        inference.router.add_get("/live", self.health.live)
        inference.router.add_get("/ready", self.health.ready)
        if self.page:
            self.page.add_to(inference.router)
        inference.router.add_route("*", "/{path:.*}", self.inference.answer, expect_handler=later)
        management.router.add_get("/token", self.management.renew_token)
        management.router.add_route("*", "/{path:.*}", self.management.answer, expect_handler=later)
        metrics.router.add_get("/metrics", self.metrics)
        return [inference, management, metrics]

    async def listen(self) -> None:
        """Starts listening at the three addresses."""
        self.connections = Connections(self.counters)
        modes = (0o660, 0o600, 0o600)  # of sockets; nginx is in the group and must reach inference
        for at, app, mode in zip(self.addresses, self.applications(), modes, strict=True):
            self.at = at
            runner = web.AppRunner(
                app,
                handler_cancellation=True,
                access_log=None,
                auto_decompress=False,
                keepalive_timeout=IDLE,
                logger=server_logger(partial(self.counters.refuse, "malformed")),
                max_field_size=LINE,
                max_headers=HEADERS,
                max_line_size=LINE,
                shutdown_timeout=0.1,  # close() waits before
            )
            await runner.setup()
            self.runners.append(runner)
            assert runner.server
            self.listeners.append(await self.connections.listen(runner.server, self.at, mode))

    async def close(self) -> None:
        """Closes all connections; those with running requests are given ``drain`` seconds."""
        for listener in self.listeners:
            listener.close()
        for runner in self.runners:
            if runner.server:
                runner.server.pre_shutdown()  # connections take no further request
        deadline = time.monotonic() + self.drain
        while self.connections.busy and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        for runner in self.runners:
            await runner.cleanup()
        for at in self.addresses[: len(self.listeners)]:
            if isinstance(at, Path):
                at.unlink(missing_ok=True)
        await self.backend.close()

    @web.middleware
    async def observe(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Gives each request its id, and logs how it ends."""
        entry = request[KEY] = Entry(request)
        status, reason = 499, {}  # the client has gone
        with self.connections.in_use(request):
            try:
                check_path(request)
                response: web.StreamResponse = await handler(request)
                status = response.status
            except Refusal as refusal:
                if request.method != "GET" or refusal.why == "token":  # health checks are not counted
                    self.counters.refuse(refusal.why)
                status, reason = refusal.status, {"refused": refusal.why}
                response = refusal
            except (ClientError, ConnectionError, Gone) as error:  # in the middle of a reply
                reason = {"broken": type(error).__name__}
                if request.transport:
                    request.transport.abort()
                response = web.Response(status=status)  # not sent; without a response, aiohttp would log a traceback
            except web.HTTPException as answer:
                status = answer.status
                raise
            except Exception:
                logger.exception("%s failed by a fault of this server", entry)
                self.counters.refuse("internal")
                status, reason = 500, {"refused": "internal"}
                response = Refusal(500, "internal", "a fault of this server, which its log describes")
            finally:
                if request.method != "GET":
                    self.journal.end(entry, status, **reason)
        if not response.prepared:
            response.headers["X-Request-ID"] = entry.id
        if isinstance(response, Refusal):
            raise response
        return response

    async def metrics(self, request: web.Request) -> web.Response:
        """The front's metrics, and TorchServe's if it is running."""
        own = self.counters.exposition()
        try:
            async with await self.backend.send("metrics", "GET", request.rel_url.raw_path_qs) as reply:
                theirs = await reply.read() if reply.status == 200 else b""
        except (Gone, ClientError, OSError):
            theirs = b""
        return web.Response(body=own + theirs, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def check_path(request: web.Request) -> None:
    """Raises a refusal if a part of a request's path is ``.`` or ``..``, in whatever notation.

    Proxies resolve them, and TorchServe does not: it would not do what the proxy has allowed.
    """
    parts = re.split(r"[/\\]", unquote(request.rel_url.raw_path))
    if not {".", ".."}.isdisjoint(parts):
        raise Refusal(400, "path", "a part of the path is '.' or '..': send the path without it")


async def later(request: web.Request) -> None:
    """Delays ``100 Continue`` for clients that wait for it, such as curl: the request may be refused first."""
