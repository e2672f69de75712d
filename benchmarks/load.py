"""Concurrent clients that put a server under load, for benchmarks."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from threading import local
from urllib.parse import urlsplit

from perceptual.client.addresses import RunningServer
from perceptual.errors import ServerError

IDLE = 30.0  # seconds after which a connection is not used again; the server closes it after 60


@dataclass(frozen=True)
class Load:
    """A measured load: seconds in total, and seconds from each request to its reply."""

    seconds: float
    latencies: list[float]

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds


def generate(address: RunningServer, model: str, photo: bytes, concurrency: int, requests: int, longest: float) -> Load:
    """Sends a photo repeatedly; each thread sends the next request when it has the reply.

    This does not use the client of this package, which takes some milliseconds of processor time for each request; a
    server on the same machine would then have less.

    Args:
        address: Where the server is.
        model: Name of the model.
        photo: Encoded.
        concurrency: Number of threads.
        requests: Maximum number of requests.
        longest: Seconds after which no more are sent.

    Raises:
        ServerError: It refuses a request.
    """
    tokens = address.tokens("inference")
    headers = {"Content-Type": "application/octet-stream"}
    headers |= {"Authorization": f"Bearer {tokens.valid()}"} if tokens else {}
    client = Client(address.inference_url, f"/predictions/{model}", photo, headers)
    with ThreadPoolExecutor(concurrency) as pool:
        begin = time.perf_counter()
        sent = pool.map(partial(client.ask, begin + longest), range(requests))
        latencies = [seconds for seconds in sent if seconds is not None]
        return Load(time.perf_counter() - begin, latencies)


class Client:
    """Sends one request repeatedly, with one connection for each thread.

    Args:
        url: Of the server.
        path: Of the request.
        body: Its content.
        headers: Its headers.
    """

    def __init__(self, url: str, path: str, body: bytes, headers: dict[str, str]) -> None:
        self.host = urlsplit(url).netloc
        self.request = path, body, headers
        self.own = local()

    def ask(self, deadline: float, number: int) -> float | None:
        """Seconds from a request to its reply; None, and no request, after the deadline."""
        begin = time.perf_counter()
        if begin > deadline:
            return None
        if not hasattr(self.own, "connection"):
            self.own.connection = HTTPConnection(self.host, timeout=120)
        elif begin > self.own.used + IDLE:
            self.own.connection.close()  # the next request opens it again
        self.own.connection.request("POST", *self.request)
        response = self.own.connection.getresponse()
        reply = response.read()
        if response.status != 200:
            raise ServerError(f"the server refuses a request: {response.status} {reply[:200]!r}")
        self.own.used = time.perf_counter()
        return self.own.used - begin
