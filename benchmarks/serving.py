"""Measures pictures per second of a server over HTTP, latencies, and the time of each stage.

  python -m benchmarks serving
  python -m benchmarks serving --concurrency 4 --requests 100 --repeats 5

TorchServe serves an archive of the default style network, with one worker or --workers. --concurrency clients, in a
separate process, send a JPEG photo of noise. In turn with them, this process decodes, stylizes and encodes the same
photo as many times, on as many threads as one worker has; `of in process` is the server's rate divided by this rate.

`p50`, `p95` and `p99` are seconds from request to reply. `queued` is the mean time in TorchServe's queue, in seconds.
`% decode`, `% infer` and `% encode` are shares of the rest, as the worker measures them; `% server` is the remainder:
HTTP, TorchServe and the client.
"""

import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from perceptual.archives.build import package
from perceptual.client.addresses import RunningServer
from perceptual.client.connection import Client
from perceptual.errors import ServerError
from perceptual.inference import images
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.predictor import Predictor, load
from perceptual.inference.weights import save_network
from perceptual.options import StyleOptions
from perceptual.serving.server import Server

from .arguments import count
from .load import Load, generate
from .photos import noise
from .process import in_own_process
from .report import Row, Tables, show_progress
from .timing import Spread

MODEL = "style"
STAGES = ("decode", "infer", "encode")
PERCENTILES = (50, 95, 99)
SETTLE = 10.0  # seconds within which the metrics of a reply appear; they go through a log


@dataclass(frozen=True)
class Plan:
    """The load for a server: a photo, requests and maximum seconds of a round, and the number of rounds."""

    photo: bytes
    requests: int
    longest: float
    repeats: int


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the benchmark's options."""
    parser.add_argument("--size", type=count, default=512, help="side of the square photo, px (default: %(default)s)")
    parser.add_argument(
        "--concurrency",
        nargs="+",
        type=count,
        metavar="N",
        default=[1, 4, 16],
        help="concurrent requests (default: 1 4 16)",
    )
    parser.add_argument(
        "--requests", type=count, default=100, metavar="N", help="in a round, at most (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=count, default=60, metavar="N", help="of a round, at most (default: %(default)s)"
    )
    parser.add_argument("--workers", type=count, default=1, metavar="N", help="of the server (default: %(default)s)")
    parser.add_argument("--repeats", type=count, default=3, metavar="N", help="rounds (default: %(default)s)")


def run(args: Namespace) -> Tables:
    """Serves the network and measures it at every concurrency."""
    plan = Plan(noise(args.size), args.requests, args.seconds, args.repeats)
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch, f"{MODEL}.safetensors")
        save_network(weights, StyleNetwork(), {})
        package(weights, scratch)
        predictor = load(weights)
        show_progress("starting TorchServe")
        with Server(scratch, port=0) as server, server.address.management() as management:
            management.scale(MODEL, args.workers)
            rows = [measure(server.address, MODEL, predictor, plan, each) for each in args.concurrency]
    return {f"Serving, {args.size}² JPEG": rows}


def measure(address: RunningServer, model: str, predictor: Predictor, plan: Plan, concurrency: int) -> Row:
    """The figures of one concurrency.

    Args:
        address: Where the server is.
        model: Name of the model.
        predictor: Of the same network.
        plan: The load.
        concurrency: Number of concurrent requests.
    """
    warm_up = replace(plan, requests=concurrency)
    over_http(address, model, warm_up, concurrency)
    in_process(predictor, replace(plan, requests=1))
    served, called = [], []
    before = read_times(address, model)
    for number in range(plan.repeats):
        show_progress(f"{concurrency} concurrent: round {number + 1} of {plan.repeats}")
        served.append(over_http(address, model, plan, concurrency))
        called.append(in_process(predictor, plan))
    latencies = [seconds for load in served for seconds in load.latencies]
    after = times_after(address, model, before, len(latencies))
    spent = {name: (after[name][0] - before.get(name, (0.0, 0))[0]) / len(latencies) for name in after}
    return {
        "concurrent": concurrency,
        "requests/s": Spread.of(load.rate for load in served),
        **{f"p{rank}": float(np.percentile(latencies, rank)) for rank in PERCENTILES},
        "in process/s": Spread.of(load.rate for load in called),
        "of in process": Spread.of_ratios((each.rate for each in served), (each.rate for each in called)),
        "queued": spent["queue"],
        **shares(spent, float(np.mean(latencies)) - spent["queue"]),
    }


def over_http(address: RunningServer, model: str, plan: Plan, concurrency: int) -> Load:
    """A round over HTTP."""
    return in_own_process(generate, address, model, plan.photo, concurrency, plan.requests, plan.longest)


def in_process(predictor: Predictor, plan: Plan) -> Load:
    """A round without a server: a worker's work, one photo after the other."""
    times = [time.perf_counter()]
    while len(times) <= plan.requests and times[-1] - times[0] < plan.longest:
        (picture,) = predictor.stylize_pictures([images.decode(plan.photo)], [StyleOptions()])
        images.encode(picture)
        times.append(time.perf_counter())
    return Load(times[-1] - times[0], np.diff(times).tolist())


def shares(spent: Mapping[str, float], mean: float) -> Row:
    """The share of each stage in a request's mean time, in per cent, and the remaining share of the server."""
    parts = {f"% {stage}": 100 * spent[stage] / mean for stage in STAGES}
    return parts | {"% server": 100 - sum(parts.values())}


def times_after(
    address: RunningServer, model: str, before: Mapping[str, tuple[float, int]], replies: int
) -> dict[str, tuple[float, int]]:
    """As :func:`read_times`, after it has counted that many more replies. Raises ServerError if it does not."""
    deadline = time.monotonic() + SETTLE
    expected = before.get("encode", (0.0, 0))[1] + replies
    while (times := read_times(address, model)).get("encode", (0.0, 0))[1] < expected:
        if time.monotonic() > deadline:
            raise ServerError(f"the server's metrics do not count all replies of {model}; see {address.logs}")
        time.sleep(0.1)
    return times


def read_times(address: RunningServer, model: str) -> dict[str, tuple[float, int]]:
    """Seconds of requests in each stage and in the queue, and their number, since the server's start."""
    with Client(address.metrics_url) as client:
        families = text_string_to_metric_families(client.send("GET", "/metrics").text)
    seconds, counts = defaultdict[str, float](float, queue=0.0), defaultdict[str, int](int, queue=0)  # of all versions
    for sample in (sample for family in families for sample in family.samples):
        if sample.labels.get("ModelName") == model:
            if sample.name == "perceptual_stage_seconds_sum":
                seconds[sample.labels["Stage"]] += sample.value
            elif sample.name == "perceptual_stage_seconds_count":
                counts[sample.labels["Stage"]] += int(sample.value)
        elif sample.labels.get("model_name") == model and sample.name.startswith("ts_queue_latency_microseconds"):
            seconds["queue"] += sample.value / 1e6
    return {name: (each, counts[name]) for name, each in seconds.items()}
