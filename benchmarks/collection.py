"""Several styles, each in an archive of its own, or all of them in one collection: memory and throughput.

python -m benchmarks.collection
python -m benchmarks.collection --styles 4 --size 256 --concurrency 1
"""

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from perceptual.archive import package, package_collection
from perceptual.networks import StyleNetwork
from perceptual.server import Server
from perceptual.weights import save_network

from .report import machine, markdown

COLLECTION = "gallery"


def main() -> None:
    """Prints a row for each way."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.collection",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--styles", type=int, default=10, help="how many (default: %(default)s)")
    parser.add_argument("--size", type=int, default=512, help="side of the square photo, px (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, default=4, help="requests at once (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=4, help="requests for each style (default: %(default)s)")
    args = parser.parse_args()
    print(machine(), "\n")
    print(markdown(list(measure(args.styles, args.size, args.concurrency, args.repeats))))


def measure(styles: int, size: int, concurrency: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Serves the styles both ways, one after the other, and asks for them in turn.

    What a network takes does not depend on its weights, so they are random.
    """
    photo = io.BytesIO()
    Image.effect_noise((size, size), 64).convert("RGB").save(photo, "JPEG")
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
            print(name, file=sys.stderr)
            figures = serve(model_store, requests, photo.getvalue(), concurrency, repeats)
            yield {"served as": name, "photo": f"{size}²", "concurrency": concurrency} | figures


def serve(
    model_store: Path, requests: list[tuple[str, dict[str, str]]], photo: bytes, concurrency: int, repeats: int
) -> dict[str, Any]:
    """Figures of a server of these archives, given each of the requests ``repeats`` times, after once unmeasured."""
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
        "GiB": round(memory / 2**30, 2),
        "seconds to start": round(ready, 1),
        "requests/s": round(len(seconds) / taken, 2),
        "seconds, median": round(statistics.median(seconds), 2),
        "at most": round(max(seconds), 2),
    }


if __name__ == "__main__":
    main()
