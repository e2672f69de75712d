"""Measures how long requests wait for a worker that is busy for a share of the time, for an autoscaler's target.

  python -m benchmarks arrivals
  python -m benchmarks arrivals --shares 0.5 0.7 0.9 --requests 400

TorchServe serves an archive of the default style network with one worker. Requests arrive at random times (a Poisson
process), at rates that should keep the worker busy for each of the --shares of the time, computed from its maximum
rate.

`busy` is the measured share, by the metric that the autoscaler reads: seconds of work per second. `wait` is the mean
time from the arrival of a request to the start of its work, in seconds, `of work` its ratio to the time of the work,
and `queue` the part of it that TorchServe's `ts_queue_latency_microseconds` reports.
"""

import random
import tempfile
import time
from argparse import ArgumentParser, Namespace
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path

from perceptual.archives.build import package
from perceptual.client.addresses import RunningServer
from perceptual.commands.arguments import converter
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.weights import save_network
from perceptual.serving.server import Server
from perceptual.settings import Number

from .arguments import count
from .load import Client, generate
from .photos import noise
from .process import in_own_process
from .report import Row, Tables, show_progress
from .serving import MODEL, STAGES, read_times, times_after

MOST = 64  # concurrent requests; as many may wait at the server


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the benchmark's options."""
    parser.add_argument("--size", type=count, default=256, help="side of the square photo, px (default: %(default)s)")
    parser.add_argument(
        "--shares",
        nargs="+",
        type=converter(Number(0.01, 0.99)),
        metavar="SHARE",
        default=[0.3, 0.5, 0.7, 0.8, 0.9],
        help="shares of the time in which the worker should be busy (default: 0.3 0.5 0.7 0.8 0.9)",
    )
    parser.add_argument("--requests", type=count, default=200, metavar="N", help="for each (default: %(default)s)")


def run(args: Namespace) -> Tables:
    """Serves the network and measures it at every share."""
    photo = noise(args.size)
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch, f"{MODEL}.safetensors")
        save_network(weights, StyleNetwork(), {})
        package(weights, scratch)
        show_progress("starting TorchServe")
        with Server(scratch, port=0) as server:
            in_own_process(generate, server.address, MODEL, photo, 2, 10, 60)  # warms up
            rows = [measure(server.address, MODEL, photo, share, args.requests) for share in args.shares]
    return {f"Arrivals, {args.size}² JPEG": rows}


def measure(address: RunningServer, model: str, photo: bytes, share: float, requests: int) -> Row:
    """The figures of one share."""
    full = in_own_process(generate, address, model, photo, 2, max(10, requests // 5), 60)
    show_progress(f"{share:g} of {full.rate:.2f} requests a second")
    time.sleep(1)  # until the metrics include the last reply
    before = read_times(address, model)
    seconds = in_own_process(arrive, address, model, photo, share * full.rate, requests)
    after = times_after(address, model, before, requests)
    spent = {name: after[name][0] - before[name][0] for name in after}
    work = sum(spent[stage] for stage in STAGES)
    return {
        "share": share,
        "busy": work / seconds,
        "work, s": work / requests,
        "wait, s": spent["wait"] / requests,
        "of work": spent["wait"] / work,
        "queue, s": spent["queue"] / requests,
    }


def arrive(address: RunningServer, model: str, photo: bytes, rate: float, requests: int) -> float:
    """Sends a photo at random times; returns the seconds until the last reply.

    Args:
        address: Where the server is.
        model: Name of the model.
        photo: Encoded.
        rate: Mean number of requests per second.
        requests: Number of requests.
    """
    tokens = address.tokens("inference")
    headers = {"Content-Type": "application/octet-stream"}
    headers |= {"Authorization": f"Bearer {tokens.valid()}"} if tokens else {}
    client = Client(address.inference_url, f"/predictions/{model}", photo, headers)
    pauses = random.Random(0)
    begin = time.perf_counter()

    def ask_at(moment: float) -> None:
        time.sleep(max(0.0, begin + moment - time.perf_counter()))
        client.ask(float("inf"), 0)

    with ThreadPoolExecutor(MOST) as pool:
        list(pool.map(ask_at, accumulate(pauses.expovariate(rate) for _ in range(requests))))
    return time.perf_counter() - begin
