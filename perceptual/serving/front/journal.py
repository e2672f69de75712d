"""The log of requests: a JSON line when a body has arrived, before it can crash a worker, and one at the end."""

import json
import logging
import re
import time
import uuid
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from aiohttp import web

FILE = "requests.log"
SIZE, FILES = 10 * 2**20, 5  # bytes of a log, and number of logs that are kept

IDENTITY = re.compile(r"[\w.:+/=@-]{1,128}")
TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context
MAGIC = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG": "png",
    b"RIFF": "webp",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II": "tiff",
    b"MM": "tiff",
    b"--": "form",
}

logger = logging.getLogger(__name__)


class Entry:
    """A request in the journal, with its id and further data."""

    def __init__(self, request: web.BaseRequest) -> None:
        trace = TRACE.fullmatch(request.headers.get("traceparent", ""))
        self.began = time.monotonic()
        self.id = safe_header(request, "X-Request-ID") or uuid.uuid4().hex
        self.known: dict[str, Any] = {"request_id": self.id, "method": request.method, "path": request.path[:200]}
        self.known |= {"trace_id": trace[1]} if trace else {}
        client = safe_header(request, "X-Client") or request.remote
        self.known |= {"client": client} if client else {}

    def __str__(self) -> str:
        """A short form for other logs."""
        facts = " ".join(f"{key}={value}" for key, value in self.known.items() if key != "request_id")
        return f"request {self.id} ({facts})"


KEY = web.RequestKey("entry", Entry)  # request[KEY] is its entry


class Journal:
    """Writes ``requests.log``, which is rotated.

    Args:
        folder: Of the logs.
    """

    def __init__(self, folder: Path) -> None:
        self.handler = RotatingFileHandler(folder / FILE, maxBytes=SIZE, backupCount=FILES - 1, delay=True)
        self.handler.setFormatter(logging.Formatter("%(message)s"))

    def begin(self, entry: Entry, size: int, head: bytes) -> None:
        """Logs that a request is about to be forwarded."""
        kind = next((name for magic, name in MAGIC.items() if head.startswith(magic)), "other")
        entry.known |= {"bytes": size, "format": kind}
        self.write("begin", entry.known)

    def end(self, entry: Entry, status: int, **more: Any) -> None:
        """Logs how a request ended; for one that was refused early, this is the only line."""
        seconds = round(time.monotonic() - entry.began, 4)
        self.write("end", entry.known | {"status": status, "seconds": seconds} | more)

    def write(self, event: str, known: dict[str, Any]) -> None:
        """Writes a line."""
        line = json.dumps({"time": round(time.time(), 3), "event": event} | known)
        self.handler.emit(logging.LogRecord("requests", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """Closes the file."""
        self.handler.close()


def safe_header(request: web.BaseRequest, header: str) -> str | None:
    """The value of a header, if it is short and plain enough for a log."""
    value = request.headers.get(header, "")
    return value if IDENTITY.fullmatch(value) else None


class OneLine(logging.Filter):
    """Removes the request, and so its secrets, from what aiohttp logs about malformed requests.

    Args:
        malformed: Called for each of them.
    """

    def __init__(self, malformed: Callable[[], None]) -> None:
        super().__init__()
        self.malformed = malformed

    def filter(self, record: logging.LogRecord) -> bool:
        """Reduces an error of aiohttp to its class; what is not even HTTP is counted and not logged."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and type(error).__module__.startswith("aiohttp."):
            record.msg, record.args = f"malformed request: {type(error).__name__}", None
            record.exc_info = record.exc_text = None
            self.malformed()
        return record.levelno > logging.DEBUG


def server_logger(malformed: Callable[[], None]) -> logging.Logger:
    """A logger for aiohttp's server, which calls a function for each malformed request."""
    quiet = logging.Logger(f"{__name__}.aiohttp", logging.DEBUG)
    quiet.parent = logging.getLogger(__name__)
    quiet.addFilter(OneLine(malformed))
    return quiet
