"""What stands before TorchServe: answers where it does not, and says when to try again.

TorchServe's own 503 does not tell when to try again, a request whose model has lost its workers waits without limit,
and while TorchServe starts again, nobody answers at all.
"""

import asyncio
import math
import re
import threading
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, UnixConnector, web
from multidict import CIMultiDict
from yarl import URL

from ..errors import ServerError

RETRY_AFTER = 5  # seconds; a full queue or a start of TorchServe passes in about that time
CONNECT_TIMEOUT = 5.0  # seconds; TorchServe is on this machine
GRACE = 2.0  # seconds at the end for replies that are under way
# What curl --data-binary says of a photo; TorchServe would take it apart as a form, and fail.
URLENCODED = "application/x-www-form-urlencoded"
BAD_FORM = ("ErrorDataDecoderException", "NullPointerException")  # TorchServe's 500 for a form it cannot take apart
NO_WORKER = b"has no worker to serve inference request"  # TorchServe's words for a full queue, too
# Of one connection, not of what passes (RFC 9110, section 7.6.1), or, as Expect, answered here already.
HOP_BY_HOP = {"Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect"}

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

T = TypeVar("T")


class Front:
    """Passes requests on to TorchServe's inference API, from a thread of its own.

    Every reply of status 503 says in ``Retry-After`` when to try again, TorchServe's as well as those given here: while
    there is no TorchServe, when it dies at a request, and to what waits for a model that is held back. A form that
    TorchServe cannot read is the client's mistake, 400, and no error of the server.

    Args:
        at: Where to listen: a port of the loopback address, or the path of a socket.
        torchserve: The socket of TorchServe's inference API.
        largest: The largest request body, in bytes; a larger one is answered 413.
    """

    def __init__(self, at: int | Path, torchserve: Path, largest: int) -> None:
        self.at = at
        self.torchserve = torchserve
        self.largest = largest
        self.waiting: dict[asyncio.Task[Any], str] = {}  # the path that each request is for
        self.refused: WeakSet[asyncio.Task[Any]] = WeakSet()  # of those, the ones told that it is no use
        self.due: dict[str, float] = {}  # when to ask for a path again, in the seconds of time.monotonic

    def start(self) -> None:
        """Listens. Raises ServerError if it cannot."""
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="front", daemon=True)
        self.thread.start()
        try:
            self.run(self.listen())
        except OSError as error:
            self.stop()
            raise ServerError(f"cannot listen at {self.at}: {error.strerror or error}") from error

    def stop(self) -> None:
        """Ends all connections, within a few seconds."""
        self.run(self.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def refuse(self, path: str, seconds: float) -> None:
        """Refuses the requests for a path that wait now; they and later ones are told to try again after some seconds.

        Whether later ones are refused is up to TorchServe. A path that stands for the same model as another, such as
        ``/models/NAME/invoke``, is that other one: ``/predictions/NAME`` or ``/predictions/NAME/VERSION``.
        """
        self.due[path] = time.monotonic() + seconds
        self.loop.call_soon_threadsafe(self.end_wait, path)

    def welcome(self, *paths: str) -> None:
        """Forgets when to ask for paths again: there is no reason to wait any more."""
        for path in paths:
            self.due.pop(path, None)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that runs in the thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    async def listen(self) -> None:
        """Begins to listen."""
        self.session = ClientSession(
            connector=UnixConnector(str(self.torchserve), limit=0),  # TorchServe's own queue is the limit
            timeout=ClientTimeout(total=None, connect=CONNECT_TIMEOUT),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )
        app = web.Application(client_max_size=self.largest)
        app.router.add_route("*", "/{path:.*}", self.answer, expect_handler=self.invite)
        self.runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, auto_decompress=False, shutdown_timeout=GRACE
        )
        await self.runner.setup()
        if isinstance(self.at, Path):
            await web.UnixSite(self.runner, self.at).start()
        else:
            await web.TCPSite(self.runner, "127.0.0.1", self.at, reuse_address=True).start()

    async def close(self) -> None:
        """Ends all connections."""
        await self.runner.cleanup()
        await self.session.close()

    async def invite(self, request: web.Request) -> None:
        """Has a client send the body that it first asks about, as curl does with large ones."""
        self.refuse_if_too_large(request)
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the reply proper is still to come

    def refuse_if_too_large(self, request: web.Request) -> None:
        """Raises the reply 413 before a body comes that is said to be over the limit."""
        if request.content_length and request.content_length > self.largest:
            raise web.HTTPRequestEntityTooLarge(self.largest, request.content_length)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answers one request: by TorchServe, or in its stead."""
        self.refuse_if_too_large(request)
        body = await request.read()  # first, so that a slow upload takes no connection of TorchServe
        try:
            reply = await self.ask(request, body)
        except (ClientError, asyncio.TimeoutError):
            return refusal("TorchServe is starting again", RETRY_AFTER)
        except asyncio.CancelledError:
            if asyncio.current_task() not in self.refused:
                raise  # the client has gone
            return refusal("the workers of this model keep dying, or it was scaled to none", self.retry_after(request))
        async with reply:
            if reply.status == 200:
                return await self.pass_back(reply, request)
            return self.told(reply, await reply.read(), request)

    async def ask(self, request: web.Request, body: bytes) -> ClientResponse:
        """TorchServe's reply to a request, as soon as it begins; until then the request counts as waiting."""
        url = URL(f"http://torchserve{request.rel_url.raw_path_qs}", encoded=True)
        headers = passed(request.headers)
        if request.content_type == URLENCODED:
            headers["Content-Type"] = "application/octet-stream"
        task = asyncio.current_task()
        assert task
        self.waiting[task] = asked_for(request)
        try:
            return await self.session.request(request.method, url, headers=headers, data=body, allow_redirects=False)
        finally:
            del self.waiting[task]

    async def pass_back(self, reply: ClientResponse, request: web.Request) -> web.StreamResponse:
        """Passes on a reply piece by piece: it may be a large picture."""
        response = web.StreamResponse(headers=passed(reply.headers))
        await response.prepare(request)
        async for piece in reply.content.iter_any():
            await response.write(piece)
        await response.write_eof()
        return response

    def told(self, reply: ClientResponse, body: bytes, request: web.Request) -> web.Response:
        """What a client is told where TorchServe or a handler refuses."""
        if reply.status == 500 and any(kind.encode() in body for kind in BAD_FORM):
            detail = "TorchServe cannot parse this form; send the image as form field data, or as the body"
            return web.json_response({"error": "InvalidImage", "detail": detail}, status=400)
        if reply.status == 503 and NO_WORKER in body:
            return refusal("the queue of this model is full, or it has no workers", self.retry_after(request))
        headers = passed(reply.headers)
        if reply.status == 503:
            headers["Retry-After"] = str(self.retry_after(request))
        return web.Response(status=reply.status, reason=reply.reason, headers=headers, body=body)

    def retry_after(self, request: web.Request) -> int:
        """Whole seconds after which to ask again."""
        due = self.due.get(asked_for(request), 0.0)
        return max(RETRY_AFTER, math.ceil(due - time.monotonic()))

    def end_wait(self, path: str) -> None:
        """Ends the wait of all requests for a path."""
        tasks = {task for task, wanted in self.waiting.items() if wanted == path}
        self.refused |= tasks
        for task in tasks:
            task.cancel()


def asked_for(request: web.Request) -> str:
    """The path that a request is for, in the one form of the several that TorchServe takes for the same model."""
    path = request.path.rstrip("/")
    if path == "/invocations":
        return f"/predictions/{request.query.get('model_name', '')}"
    for form in MODEL_PATHS:
        if found := form.fullmatch(path):
            return "/".join(["/predictions", *filter(None, found.groups())])
    return path


def passed(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers that are passed on."""
    return CIMultiDict((name, value) for name, value in headers.items() if name.title() not in HOP_BY_HOP)


def refusal(message: str, seconds: int) -> web.Response:
    """A reply of status 503, in TorchServe's form."""
    body = {"code": 503, "type": "ServiceUnavailableException", "message": message}
    return web.json_response(body, status=503, headers={"Retry-After": str(seconds)})
