"""The management API: forwards requests to TorchServe, and removes a model only after its requests are answered."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from aiohttp import ClientError, web

from ..snapshots import make_newest, snapshot_files
from .access import KINDS, Access
from .bodies import Bodies
from .inference import Inference
from .page import Page
from .queues import Queues
from .replies import Refusal
from .torchserve import Gone, TorchServe, passed, unanswered

LONGEST = 610.0  # seconds to wait for a model's requests; a little more than responseTimeout in the archives' yaml


class Management:
    """The management API, which always needs a token."""

    def __init__(
        self,
        torchserve: TorchServe,
        access: Access,
        bodies: Bodies,
        queues: Queues,
        inference: Inference,
        page: Page | None,
        snapshots: Path,
    ) -> None:
        self.torchserve = torchserve
        self.access = access
        self.bodies = bodies
        self.queues = queues
        self.inference = inference
        self.page = page
        self.snapshots = snapshots

    async def renew_token(self, request: web.Request) -> web.Response:
        """Issues a token, or a key for the page: ``GET /token?type=inference``, ``management`` or ``page``."""
        self.access.check_api_key(request)
        kind = request.query.get("type", "")
        if kind == "page" and self.page:
            return web.json_response({kind: {"key": self.page.invite()}})
        if kind not in KINDS:
            raise Refusal(400, "token", f"type is inference or management{', or page' if self.page else ''}")
        return web.json_response({kind: self.access.issue(kind)})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answers one request by TorchServe."""
        self.access.check(request, "management")
        name, version = model_in(request.rel_url.raw_path)
        paths = await self.paths_of(name, version) if name and request.method in ("DELETE", "PUT") else []
        removed = paths if request.method == "DELETE" else []
        before = snapshot_files(self.snapshots)
        async with self.finished(removed):
            response = await self.relay(request)
        make_newest(self.snapshots, before)
        if name and response.status < 300 and request.method != "GET":
            if request.method == "DELETE" or request.query.get("min_worker") == "0":
                for path in paths:  # requests that wait for it would never be answered
                    self.inference.end_wait(path)
            await self.queues.renew(name)
        return response

    async def relay(self, request: web.Request) -> web.Response:
        """TorchServe's reply."""
        headers = passed(request.headers)
        headers.popall("Authorization", None)
        with self.bodies.received() as body:
            await self.bodies.receive(request, body)
            try:
                path = request.rel_url.raw_path_qs
                async with await self.torchserve.send("management", request.method, path, headers, body) as reply:
                    text = await reply.read()
            except Gone as error:
                raise unanswered(error) from error
            except (ClientError, OSError) as error:
                raise unanswered(Gone(str(error))) from error
        return web.Response(status=reply.status, reason=reply.reason, headers=passed(reply.headers), body=text)

    async def paths_of(self, name: str, version: str | None) -> list[str]:
        """The prediction paths that a version answers; none if TorchServe does not have it."""
        default = await self.torchserve.describe(name)
        if not default:
            return []
        name, first = unquote(name), default[0].version
        version = unquote(version) if version else first
        own = f"/predictions/{name}/{version}"
        return [own] if version != first else [own, f"/predictions/{name}"]

    @asynccontextmanager
    async def finished(self, paths: Sequence[str]) -> AsyncIterator[None]:
        """Refuses new requests for some paths, and waits until the earlier ones are answered."""
        queues = [self.queues.by_model[model] for model in map(model_of, paths) if model in self.queues.by_model]
        for queue in queues:
            queue.closed = True
        try:
            deadline = time.monotonic() + LONGEST
            while not all(queue.empty for queue in queues) and time.monotonic() < deadline:
                if queues and not await self.works(queues[0].model):
                    break  # they would never be answered
                await asyncio.sleep(0.1)
            yield
        finally:
            for queue in queues:
                queue.closed = False

    async def works(self, model: str) -> bool:
        """Whether a model has a ready worker."""
        return any(each.ready for each in await self.torchserve.describe(quote(model)))


def model_in(path: str) -> tuple[str | None, str | None]:
    """Name and version in ``/models/NAME/VERSION``, still quoted; None for a missing one."""
    parts = path.strip("/").split("/")
    if parts[0] != "models":
        return None, None
    name, version, *_ = [*parts[1:], None, None]
    return name, version


def model_of(path: str) -> str:
    """``NAME`` or ``NAME/VERSION`` in the path of a prediction."""
    return path.removeprefix("/predictions/")
