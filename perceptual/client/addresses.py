"""Where running servers are: how one announces itself, and how it is found."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psutil

from ..errors import InputError, ServerError
from .inference import WORKING, InferenceClient
from .management import LOADING, ManagementClient
from .tokens import Tokens


class ServerAddress:
    """Where a server can be reached.

    Attributes:
        inference_url: Of its inference API; ``unix:PATH`` for a socket.
        management_url: Of its management API, likewise.
        metrics_url: Of its metrics; empty if not known.
        key_file: Its tokens; None if it requires none.
    """

    inference_url: str
    management_url: str
    metrics_url: str
    key_file: str | None

    def inference(self, timeout: float = WORKING) -> InferenceClient:
        """A client for pictures."""
        return InferenceClient(self.inference_url, self.tokens("inference"), timeout)

    def management(self, timeout: float = LOADING) -> ManagementClient:
        """A client for the models."""
        return ManagementClient(self.management_url, self.tokens("management"), timeout)

    def tokens(self, kind: Literal["inference", "management"]) -> Tokens | None:
        """What signs requests to one of its APIs."""
        return Tokens(self.key_file, kind, self.management_url) if self.key_file else None

    def page(self) -> str:
        """An address at which the server's page lets one browser in.

        Raises:
            ServerError: It has no page, or at a socket, which no browser can open.
        """
        if self.inference_url.startswith("unix:"):
            raise ServerError(f"the page is at the socket {self.inference_url}, for browsers behind a proxy")
        tokens = self.tokens("management")
        key = tokens.page_key() if tokens else ""
        return f"{self.inference_url}/{f'?key={key}' if key else ''}"


@dataclass(frozen=True)
class RemoteServer(ServerAddress):
    """A server that is known by its address alone, as from :func:`server_at`."""

    inference_url: str
    management_url: str
    metrics_url: str
    key_file: str | None


@dataclass(frozen=True)
class RunningServer(ServerAddress):
    """A server that ``perceptual serve`` started on this machine, with its process and its folders."""

    pid: int
    inference_url: str
    management_url: str
    metrics_url: str
    key_file: str | None
    logs: str
    model_store: str = ""
    snapshots: str = ""

    def announce(self, port: int) -> Path:
        """Writes the file by which :func:`find_server` finds it under a port, for this user alone to read."""
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
    """The server of this user at an inference address, whose tokens are therefore known; None if it is another's."""
    wanted = inference_url.rstrip("/").replace("//localhost:", "//127.0.0.1:")
    return next((server for server in running_servers("*.json") if server.inference_url == wanted), None)


def running_servers(files: str) -> Iterator[RunningServer]:
    """The servers that are noted in files of a pattern and have not been killed, the one started last first."""
    announced = filter(None, map(read_state, state_folder().glob(files)))
    for _, server in sorted(announced, key=lambda each: each[0], reverse=True):
        if psutil.pid_exists(server.pid):
            yield server


def server_at(management_url: str, key_file: str | Path | None = None) -> RemoteServer:
    """A server by the address of its management API.

    Its other addresses are taken to be TorchServe's: inference at the port before, metrics at the port after. Beside a
    socket (``unix:FOLDER/management.sock``) is that of inference, and metrics are not known.

    Raises:
        InputError: It is no address.
    """
    keys = str(key_file) if key_file else None
    if management_url.startswith("unix:"):
        folder = management_url.rpartition("/")[0]
        return RemoteServer(f"{folder}/inference.sock", management_url, "", keys)
    try:
        url = urlsplit(management_url)
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        host = url.netloc.removesuffix(f":{url.port}")
        inference, metrics = (url._replace(netloc=f"{host}:{port + step}").geturl() for step in (-1, 1))
    except (KeyError, ValueError):
        raise InputError(f"expected an address such as http://127.0.0.1:8081, got {management_url!r}") from None
    return RemoteServer(inference, management_url, metrics, keys)


def read_state(file: Path) -> tuple[float, RunningServer] | None:
    """When a server was announced, and which; None if it ends just now, or another version of this package did it."""
    try:
        return file.stat().st_mtime, RunningServer(**json.loads(file.read_text()))
    except (OSError, TypeError, ValueError):
        return None


def state_folder() -> Path:
    """Where the running servers of this user are noted down."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or Path.home() / ".cache") / "torchserve-perceptual"
