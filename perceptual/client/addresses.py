"""Addresses of servers, and discovery: a server writes its addresses to a file, which clients read."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psutil

from ..errors import ServerError
from .connection import check_address
from .inference import WORKING, InferenceClient
from .management import LOADING, ManagementClient
from .tokens import Tokens

CLOCK = 60.0  # seconds by which the clock may have been set since


class ServerAddress:
    """The addresses of a server's APIs.

    Attributes:
        inference_url: Inference API; ``unix:PATH`` for a socket.
        management_url: Management API; ``unix:PATH`` for a socket.
        metrics_url: Metrics API; empty if not known.
        key_file: File with its tokens; None if it requires none.
    """

    inference_url: str
    management_url: str
    metrics_url: str
    key_file: str | None

    def inference(self, timeout: float = WORKING) -> InferenceClient:
        """A client of the inference API; ``timeout`` in seconds."""
        return InferenceClient(self.inference_url, self.tokens("inference"), timeout)

    def management(self, timeout: float = LOADING) -> ManagementClient:
        """A client of the management API; ``timeout`` in seconds."""
        return ManagementClient(self.management_url, self.tokens("management"), timeout)

    def tokens(self, kind: Literal["inference", "management"]) -> Tokens | None:
        """The tokens for one of its APIs; None if it requires none."""
        return Tokens(self.key_file, kind, self.management_url) if self.key_file else None

    def page(self) -> str:
        """The address of the server's page, with a key for one browser.

        Raises:
            ServerError: The server has no page, or its page is at a socket, which browsers cannot open.
        """
        if self.inference_url.startswith("unix:"):
            raise ServerError(f"the page is at the socket {self.inference_url}, for browsers behind a proxy")
        tokens = self.tokens("management")
        key = tokens.page_key() if tokens else ""
        return f"{self.inference_url}/{f'?key={key}' if key else ''}"


@dataclass(frozen=True)
class RemoteServer(ServerAddress):
    """A server of which only the addresses are known, as from :func:`server_at`."""

    inference_url: str
    management_url: str
    metrics_url: str
    key_file: str | None


@dataclass(frozen=True)
class RunningServer(ServerAddress):
    """A server that ``perceptual serve`` started on this machine, with its process, folders and named archives."""

    pid: int
    inference_url: str
    management_url: str
    metrics_url: str
    key_file: str | None
    logs: str
    model_store: str = ""
    snapshots: str = ""
    started: float = 0.0  # seconds since 1970; later restarts of TorchServe do not count
    named: list[str] = field(default_factory=list)  # file names of the archives that its command line names

    def announce(self, port: int) -> Path:
        """Writes the file that :func:`find_server` reads; only this user can read it."""
        folder = state_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = folder / f"{port}.json"
        draft = file.with_suffix(".tmp")
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(asdict(self)))
        return draft.replace(file)


def find_server(port: int | None = None) -> RunningServer:
    """The server this user started last with ``perceptual serve``, or the one on an inference port.

    Raises:
        ServerError: There is none.
    """
    for server in running_servers("*.json" if port is None else f"{port}.json"):
        return server
    where = "" if port is None else f" on port {port}"
    raise ServerError(f"no server is running{where}; start one with: perceptual serve")


def server_running_at(inference_url: str) -> RunningServer | None:
    """This user's running server at an inference address, with its key file; None if there is none."""
    address = inference_url.rstrip("/").replace("//localhost:", "//127.0.0.1:")
    return next((server for server in running_servers("*.json") if server.inference_url == address), None)


def running_servers(files: str) -> Iterator[RunningServer]:
    """The running servers announced in files that match a glob pattern, the one started last first."""
    announced = filter(None, map(read_state, state_folder().glob(files)))
    for time, server in sorted(announced, key=lambda each: each[1].started, reverse=True):
        if existed(server.pid, time):
            yield server


def announced_servers() -> list[RunningServer]:
    """This user's servers that were not stopped: those that run, restart TorchServe, or were killed."""
    return [server for _, server in filter(None, map(read_state, state_folder().glob("*.json")))]


def existed(pid: int, time: float) -> bool:
    """Whether a process of this machine existed at a time, in seconds since 1970; a later one may have its number."""
    try:
        return psutil.Process(pid).create_time() < time + CLOCK
    except psutil.NoSuchProcess:
        return False


def server_at(management_url: str, key_file: str | Path | None = None) -> RemoteServer:
    """A server by the address of its management API.

    Its other addresses are TorchServe's defaults: inference at the port before, metrics at the port after. For a socket
    (``unix:FOLDER/management.sock``), inference is at the socket beside it, and the metrics address is not known.

    Raises:
        InputError: The address is malformed.
    """
    keys = str(key_file) if key_file else None
    if management_url.startswith("unix:"):
        folder = management_url.rpartition("/")[0]
        return RemoteServer(f"{folder}/inference.sock", management_url, "", keys)
    check_address(management_url, ManagementClient.example)
    url = urlsplit(management_url)
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    host = url.netloc.removesuffix(f":{url.port}")
    inference, metrics = (url._replace(netloc=f"{host}:{port + step}").geturl() for step in (-1, 1))
    return RemoteServer(inference, management_url, metrics, keys)


def read_state(file: Path) -> tuple[float, RunningServer] | None:
    """The time of an announcement, and the server; None if the file is gone, or of another version of this package."""
    try:
        return file.stat().st_mtime, RunningServer(**json.loads(file.read_text()))
    except (OSError, TypeError, ValueError):
        return None


def state_folder() -> Path:
    """The folder of this user's announcements."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or Path.home() / ".cache") / "torchserve-perceptual"
