"""Request bodies: received within limits of size, time and space, and stored so that a request can be sent again."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile

from aiohttp import web

from .replies import Refusal, unavailable

IN_MEMORY = 2**18  # bytes of a body that are kept in memory; a larger body is kept in a file
PIECE = 2**18  # bytes of one read
PATIENCE = 30.0  # seconds for a body, plus …
SLOWEST = 2**14  # … a second for each of this many bytes
SHARE = 8  # limit of all bodies together, as a multiple of the limit of one


class Body:
    """A request's body, which is between ``start`` and ``end`` in the file."""

    def __init__(self, folder: Path) -> None:
        self.file = SpooledTemporaryFile(IN_MEMORY, dir=str(folder))  # noqa: SIM115 - closed by received()
        self.start = 0
        self.end = 0

    def __len__(self) -> int:
        return self.end - self.start

    def add(self, piece: bytes) -> None:
        """Appends a piece."""
        self.file.write(piece)
        self.end += len(piece)

    def read(self, position: int, size: int) -> bytes:
        """At most ``size`` bytes from a position, which may be beyond the end."""
        self.file.seek(position)
        return self.file.read(max(0, min(size, self.end - position)))

    def head(self, size: int) -> bytes:
        """The first bytes."""
        return self.read(self.start, size)

    def find(self, needle: bytes, most: int) -> list[int]:
        """The positions at which some bytes occur, at most ``most`` of them."""
        found: list[int] = []
        position, overlap = self.start, len(needle) - 1
        while len(found) < most and len(piece := self.read(position, PIECE + overlap)) > overlap:
            place = piece.find(needle)
            while place >= 0 and len(found) < most:
                found.append(position + place)
                place = piece.find(needle, place + 1)
            position += PIECE
        return found

    async def pieces(self) -> AsyncIterator[bytes]:
        """The whole body, in pieces."""
        position = self.start
        while piece := self.read(position, PIECE):
            yield piece
            position += len(piece)


class Bodies:
    """Receives bodies.

    Args:
        folder: For the files of large ones.
        largest: Limit for one body, in bytes.
    """

    def __init__(self, folder: Path, largest: int) -> None:
        self.folder = folder
        self.largest = largest
        self.held = 0  # bytes of all bodies

    @contextmanager
    def received(self) -> Iterator[Body]:
        """An empty body, which is deleted at the end."""
        body = Body(self.folder)
        try:
            yield body
        finally:
            self.held -= body.end
            body.file.close()

    async def receive(self, request: web.Request, body: Body) -> None:
        """Reads the body of a request.

        Raises:
            Refusal: It is too large or too slow, or there is not enough memory or disk space.
        """
        self.check_size(request.content_length or 0)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # the reply proper is still to come
        begin = time.monotonic()
        while piece := await self.next_piece(request, begin + PATIENCE + body.end / SLOWEST):
            self.check_size(body.end + len(piece))
            if self.held + len(piece) > SHARE * self.largest:
                raise unavailable("bodies", "too many large requests at the same time")
            self.held += len(piece)
            try:
                body.add(piece)
            except OSError as error:
                body.end += len(piece)  # received() subtracts body.end, and this piece is counted
                raise unavailable("disk", f"no room for the request: {error.strerror}") from error

    async def next_piece(self, request: web.Request, deadline: float) -> bytes:
        """The bytes that have arrived; empty at the end."""
        try:
            return await asyncio.wait_for(request.content.readany(), deadline - time.monotonic())
        except web.RequestPayloadError:
            raise Refusal(400, "malformed", "the request's body is malformed", close=True) from None
        except asyncio.TimeoutError:
            raise Refusal(408, "body_timeout", "the request's body is too slow", close=True) from None

    def check_size(self, size: int) -> None:
        """Raises a refusal if a body of this size is too large."""
        if size > self.largest:
            message = f"the request has more bytes than {self.largest} (max_request_size in config.properties)"
            raise Refusal(413, "size", message, close=True)
