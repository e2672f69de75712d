"""A client of TorchServe's three APIs, at sockets that only this user can open."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, UnixConnector
from multidict import CIMultiDict
from yarl import URL

from ...client.model import Model
from .access import InnerTokens
from .bodies import Body
from .replies import Refusal, unavailable

CONNECT_TIMEOUT = 5.0  # seconds; TorchServe is on this machine
# Headers that belong to one connection (RFC 9110, section 7.6.1), and Expect, which the front answers.
HOP_BY_HOP = {"Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect"}


class Gone(Exception):
    """TorchServe is not running, did not answer a request, or ended before the reply was complete."""


class TorchServe:
    """Sends requests to TorchServe.

    Args:
        folder: Of ``inference.sock``, ``management.sock``, ``metrics.sock`` and its key file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokens = InnerTokens(folder / "key_file.json")
        self.sessions: dict[str, ClientSession] = {}

    async def send(
        self, api: str, method: str, path: str, headers: Mapping[str, str] | None = None, body: Body | None = None
    ) -> ClientResponse:
        """TorchServe's reply to a request, as soon as it begins.

        Raises:
            Gone: TorchServe is not running, or ended.
            Refusal: It is starting and has not written its tokens yet.
        """
        sent = passed(headers or {})
        if api != "metrics":
            sent.update(self.tokens.header("inference" if api == "inference" else "management"))
        content: Any = None
        if body is not None:
            sent["Content-Length"] = str(len(body))
            content = body.pieces() if len(body) else None
        try:
            return await self.session(api).request(
                method, URL(f"http://torchserve{path}", encoded=True), headers=sent, data=content, allow_redirects=False
            )
        except (ClientError, OSError, asyncio.TimeoutError) as error:
            raise Gone(str(error)) from error

    def session(self, api: str) -> ClientSession:
        """The session for an API. Connections are not reused, as old ones would fail after a restart of TorchServe."""
        if api not in self.sessions:
            self.sessions[api] = ClientSession(
                connector=UnixConnector(str(self.folder / f"{api}.sock"), limit=0, force_close=True),
                timeout=ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
                auto_decompress=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            )
        return self.sessions[api]

    async def ask(self, path: str) -> Any:
        """JSON from the management API; None if it does not answer with status 200."""
        try:
            async with await asyncio.wait_for(self.send("management", "GET", path), CONNECT_TIMEOUT) as reply:
                return await reply.json(content_type=None) if reply.status == 200 else None
        except (Gone, Refusal, ClientError, ValueError, asyncio.TimeoutError):
            return None

    async def names(self) -> list[str] | None:
        """Names of the registered models; None if TorchServe does not answer."""
        names: list[str] = []
        page: dict[str, Any] = {"nextPageToken": 0}
        while "nextPageToken" in page:
            page = await self.ask(f"/models?next_page_token={page['nextPageToken']}") or {}
            if not page:
                return None
            names += [each["modelName"] for each in page["models"]]
        return sorted(set(names))

    async def describe(self, path: str) -> list[Model]:
        """The versions of a model: its default one by ``NAME``, or ``NAME/VERSION``, or ``NAME/all``; quoted."""
        return [Model.parse(each) for each in await self.ask(f"/models/{path}") or ()]

    async def close(self) -> None:
        """Ends all connections."""
        for session in self.sessions.values():
            await session.close()


def passed(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers without those of the connection."""
    return CIMultiDict((name, value) for name, value in headers.items() if name.title() not in HOP_BY_HOP)


def unanswered(error: Gone) -> Refusal:
    """The reply to a client if TorchServe gives none."""
    return unavailable("torchserve", "TorchServe is starting again")
