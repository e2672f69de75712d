"""Measures memory and throughput of several styles, as separate archives and as one collection.

  python -m benchmarks collection
  python -m benchmarks collection --styles 4 --size 256 --concurrency 1

TorchServe serves networks of the default preset as archives with a worker each, then as one collection with one worker.
Clients request the styles in turn. `GiB` is the memory of the workers, without what they share.
"""

import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import psutil

from perceptual.archives.build import package, package_collection
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.weights import save_network
from perceptual.serving.server import Server

from .arguments import count
from .photos import noise
from .process import GIB
from .report import Row, Tables, show_progress
from .timing import Spread

COLLECTION = "gallery"


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the benchmark's options."""
    parser.add_argument("--styles", type=count, default=10, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--size", type=count, default=512, help="side of the square photo, px (default: %(default)s)")
    parser.add_argument(
        "--concurrency", type=count, default=4, metavar="N", help="concurrent requests (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats", type=count, default=4, metavar="N", help="requests for each style (default: %(default)s)"
    )


def run(args: Namespace) -> Tables:
    """Serves the styles both ways."""
    return {"Several styles": list(measure(args.styles, args.size, args.concurrency, args.repeats))}


def measure(styles: int, size: int, concurrency: int, repeats: int) -> Iterator[Row]:
    """Serves the styles both ways, one after the other, and requests them in turn.

    Time and memory do not depend on the weights, so these are random.
    """
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch, f"style_{number}.safetensors") for number in range(styles)]
        for file in files:
            save_network(file, StyleNetwork(), {})
        each, together = Path(scratch, "archives"), Path(scratch, "collection")
        for file in files:
            package(file, each)
        package_collection(COLLECTION, files, together)
        ways: dict[str, tuple[Path, list[tuple[str, dict[str, str]]]]] = {
            f"{styles} archives": (each, [(file.stem, {}) for file in files]),
            "a collection": (together, [(COLLECTION, {"style": file.stem}) for file in files]),
        }
        for name, (model_store, requests) in ways.items():
            show_progress(name)
            figures = serve(model_store, requests, noise(size), concurrency, repeats)
            yield {"served as": name, "photo": f"{size}²", "concurrency": concurrency} | figures


def serve(
    model_store: Path, requests: list[tuple[str, dict[str, str]]], photo: bytes, concurrency: int, repeats: int
) -> Row:
    """Figures of a server of these archives, for ``repeats`` times each of the requests, after one unmeasured time."""
    begin = time.perf_counter()
    with Server(model_store, port=0) as server, ThreadPoolExecutor(concurrency) as pool:
        ready = time.perf_counter() - begin
        with server.address.inference() as client, server.address.management() as management:

            def ask(request: tuple[str, dict[str, str]]) -> float:
                begin = time.perf_counter()
                client.stylize(photo, request[0], **request[1])
                return time.perf_counter() - begin

            list(pool.map(ask, requests))
            begin = time.perf_counter()
            seconds = list(pool.map(ask, islice(cycle(requests), repeats * len(requests))))
            taken = time.perf_counter() - begin
            pids = [pid for name in management.models() for pid in management.ready_workers(name)]
        memory = sum(psutil.Process(pid).memory_full_info().uss for pid in pids)
    return {
        "workers": len(pids),
        "GiB": memory / GIB,
        "seconds to start": ready,
        "requests/s": len(seconds) / taken,
        "seconds": Spread.of(seconds),
    }
