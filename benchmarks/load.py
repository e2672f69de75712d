"""Clients that ask a server for pictures, several at once: what a benchmark puts it under load with."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from perceptual.client import InferenceClient, RunningServer


@dataclass(frozen=True)
class Load:
    """What a server has borne: seconds in all, and from each request to its reply."""

    seconds: float
    latencies: list[float]

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds


def generate(address: RunningServer, model: str, photo: bytes, concurrency: int, requests: int, longest: float) -> Load:
    """Sends a photo again and again, each thread as soon as it has its last reply.

    Args:
        address: Where the server is.
        model: The model that is asked.
        photo: Encoded.
        concurrency: Threads.
        requests: How many in all, at most.
        longest: Seconds after which no more are sent.

    Raises:
        ServerError: It does not answer.
        InputError: It refuses the photo.
    """
    with address.inference() as client, ThreadPoolExecutor(concurrency) as pool:
        begin = time.perf_counter()
        sent = pool.map(partial(ask, client, model, photo, begin + longest), range(requests))
        latencies = [seconds for seconds in sent if seconds is not None]
        return Load(time.perf_counter() - begin, latencies)


def ask(client: InferenceClient, model: str, photo: bytes, deadline: float, number: int) -> float | None:
    """Seconds from a request to its reply; None, and no request, after the deadline."""
    begin = time.perf_counter()
    if begin > deadline:
        return None
    client.predict(photo, model, {})
    return time.perf_counter() - begin
