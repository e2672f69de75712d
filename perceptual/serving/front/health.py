"""Liveness and readiness, for Kubernetes and load balancers."""

import asyncio
import time
from urllib.parse import quote

from aiohttp import web

from .torchserve import TorchServe

FRESH = 1.0  # seconds for which a result is cached, as anyone may send these requests, and TorchServe has other work


class Health:
    """Answers ``GET /live`` and ``GET /ready``, without a token.

    TorchServe's ``/ping`` replies Healthy even if no worker has loaded its model.

    Attributes:
        started: Whether the server has finished its start.
        left_out: Names of archives that are damaged, or that TorchServe did not register.
        held: Models that the supervisor holds back.
    """

    def __init__(self, torchserve: TorchServe) -> None:
        self.torchserve = torchserve
        self.started = False
        self.left_out: list[str] = []
        self.held: list[str] = []
        self.asking = asyncio.Lock()
        self.known_at = float("-inf")
        self.known: list[str] = []

    async def live(self, request: web.Request) -> web.Response:
        """200, as long as the front's event loop runs."""
        return web.json_response({"status": "alive"})

    async def ready(self, request: web.Request) -> web.Response:
        """200 if every model has a worker that has loaded it; else 503, with the names of the missing models."""
        missing = await self.missing()
        body = {"status": "not ready" if missing else "ready", "missing": missing}
        return web.json_response(body, status=503 if missing else 200)

    async def missing(self) -> list[str]:
        """The models that do not answer; ``server`` or ``TorchServe`` before these have started."""
        if not self.started:
            return ["server"]
        async with self.asking:
            if time.monotonic() > self.known_at + FRESH:
                self.known = await self.without_worker()
                self.known_at = time.monotonic()
        return sorted({*self.held, *self.known})

    async def without_worker(self) -> list[str]:
        """The models that should have workers but have none that is ready, and the archives that are not registered."""
        names = await self.torchserve.names()
        if names is None:
            return ["TorchServe"]
        versions = [each for name in names for each in await self.torchserve.describe(f"{quote(name)}/all")]
        return [name for name in self.left_out if name not in names] + [
            each.id.path for each in versions if each.wanted and not each.ready
        ]
