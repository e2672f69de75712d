"""Connections to the front: limits on their number, and on idle and slow ones.

aiohttp closes a connection after :data:`IDLE` seconds without a complete request head. A client that does not read its
reply for :data:`WRITE` seconds is disconnected.
"""

import asyncio
import logging
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from .counters import Counters
from .replies import RETRY_AFTER

IDLE = 60.0  # seconds
WRITE = 30.0  # seconds in which a client must read some 48 KB of a reply, the size of asyncio's buffers
MOST = 1000  # open connections, if the limit on open files allows them
FILES_EACH = 3  # for each connection: itself, its connection to TorchServe, and the file of its body
FILES_ELSE = 100  # other open files of the program
LINE = 16_384  # bytes of a request's first line, or of one header
HEADERS = 100  # in one request
QUIET = 10.0  # seconds between two log lines about the same error

FULL = (
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    f'Retry-After: {RETRY_AFTER}\r\n\r\n{{"code": 503, "type": "ServiceUnavailableException", '
    '"message": "too many connections"}'
).encode()

logger = logging.getLogger(__name__)


class Connections:
    """All connections of the front. At the limit, the one that has been idle longest is closed for a new one."""

    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self.most = allowed_connections()
        self.idle: dict[asyncio.BaseTransport, None] = {}  # in the order in which they became idle
        self.busy: set[asyncio.BaseTransport] = set()
        self.reported = -QUIET

    async def listen(self, server: Callable[[], Any], at: int | Path, mode: int) -> asyncio.Server:
        """Listens at a port of the loopback address, or at a UNIX socket with permissions ``mode``.

        Raises:
            OSError: The address cannot be used.
        """
        bound = bound_to(at, mode)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self.report)
        return await loop.create_server(lambda: Connection(server(), self), sock=bound, backlog=128)

    def admit(self, transport: asyncio.BaseTransport) -> bool:
        """Adds a connection, for which an idle one may be closed. Returns whether there is room."""
        if len(self.idle) + len(self.busy) >= self.most:
            oldest = next(iter(self.idle), None)
            if oldest is None:
                return False
            self.remove(oldest)
            oldest.abort()  # type: ignore[attr-defined]
            self.counters.refuse("connections")
        self.idle[transport] = None
        return True

    def remove(self, transport: asyncio.BaseTransport) -> None:
        """Removes a connection."""
        self.idle.pop(transport, None)
        self.busy.discard(transport)

    @contextmanager
    def in_use(self, request: web.BaseRequest) -> Iterator[None]:
        """Marks the request's connection as busy while the request is answered."""
        transport = request.transport
        if transport is None:
            yield
            return
        self.idle.pop(transport, None)
        self.busy.add(transport)
        try:
            yield
        finally:
            if transport in self.busy:
                self.busy.remove(transport)
                self.idle[transport] = None

    def report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Logs errors of the event loop; asyncio reports a lack of open files a hundred times a second."""
        error = context.get("exception")
        if not isinstance(error, OSError):
            loop.default_exception_handler(context)
        elif loop.time() > self.reported + QUIET:
            self.reported = loop.time()
            logger.error("%s: %s", context.get("message"), error)


class Connection(asyncio.Protocol):
    """A protocol between a transport and aiohttp's protocol, which limits connections and slow readers."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self.inner = inner
        self.connections = connections
        self.admitted = False
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepts the connection, or replies 503 if there are too many."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.admitted = self.connections.admit(transport)
        if self.admitted:
            self.inner.connection_made(transport)
        else:
            self.connections.counters.refuse("connections")
            transport.write(FULL)
            transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Forwards to aiohttp."""
        self.resumed()
        self.connections.remove(self.transport)
        if self.admitted:
            self.inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Forwards to aiohttp."""
        if self.admitted:
            self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Forwards to aiohttp."""
        return self.inner.eof_received() if self.admitted else None

    def pause_writing(self) -> None:
        """Starts the timer: the send buffer is full, and the client has :data:`WRITE` seconds to read."""
        self.timer = asyncio.get_running_loop().call_later(WRITE, self.give_up)
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        """Stops the timer: the client has read."""
        self.resumed()
        self.inner.resume_writing()

    def resumed(self) -> None:
        """Stops the timer."""
        if self.timer:
            self.timer.cancel()
            self.timer = None

    def give_up(self) -> None:
        """Closes the connection of a client that does not read."""
        self.connections.counters.refuse("write_timeout")
        self.transport.abort()


def bound_to(at: int | Path, mode: int) -> socket.socket:
    """A socket that is bound but does not listen yet, so that nobody connects before its permissions are set."""
    if isinstance(at, Path):
        bound = socket.socket(socket.AF_UNIX)
    else:  # asyncio sets TCP_NODELAY only if the protocol is given
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if isinstance(at, Path):
            at.unlink(missing_ok=True)
            bound.bind(str(at))
            at.chmod(mode)
        else:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(("127.0.0.1", at))
    except OSError:
        bound.close()
        raise
    return bound


def allowed_connections() -> int:
    """The number of connections that the limit on open files allows; the limit is raised to its maximum first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return MOST
    return min(MOST, max(8, (hard - FILES_ELSE) // FILES_EACH))
