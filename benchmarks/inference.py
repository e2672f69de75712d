"""Measures time and memory of networks for an image, and compares them with the machine's limits.

  python -m benchmarks inference
  python -m benchmarks inference --networks style-default --sizes 512 1024 --engine eager openvino
  python -m benchmarks inference --networks style-default style-fast --peer examples/fast_neural_style

Every network is run with every engine, from tensor to tensor. `GFLOP/s` is the arithmetic of the network's
convolutions, as they are defined, divided by the median time, and given in per cent of the best that large convolutions
reach in PyTorch on this machine, in float32 and in bfloat16. Engines choose their precision: eager uses float32, the
others bfloat16 where the machine is fast in it. On a GPU, PyTorch computes float32 convolutions in TF32.

`floor` is the minimum time in that precision: each convolution computes at that best rate or, if this takes longer,
reads and writes its data at the speed of a large copy; all other operations take no time. `bytes` is the share of it in
which memory traffic is the limit. Caches may be faster than a copy, so small images can take less time than the floor.

`GiB` is the peak memory of a separate process that runs the batch once, and `GiB added` its increase over the loaded
network (on a GPU, both are GPU memory). For super-resolution, the size is the result's.

--peer also measures the network of pytorch/examples, in its own way: float32, eager, on tensors from 0 to 255, without
gradients. `times as fast`, `of its GiB` and `of its GiB added` compare with it.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import to_tensor

from perceptual.inference.engines import ENGINES, in_bfloat16
from perceptual.inference.predictor import Predictor, pick_device

from .arguments import Size, count, size
from .arithmetic import COPYING, PRECISIONS, ceilings, floor, works
from .catalog import CATALOG, build, scale_of, task_of
from .peer import NAME as PEER
from .peer import add_peer, peer_module
from .process import in_own_process, in_use, peak
from .report import Row, Tables, show_progress
from .timing import Spread, alternate

TITLES = {"style": "Style", "super-resolution": "Super-resolution"}

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Way:
    """A network of the catalog, or the peer's, and how it is run."""

    network: str
    engine: str
    peer: Path | None = None


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the benchmark's options."""
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=CATALOG,
        metavar="NETWORK",
        default=["style-default", "style-fast", "x4-default", "x8-default"],
        help=f"{', '.join(CATALOG)} (default: style-default style-fast x4-default x8-default)",
    )
    parser.add_argument(
        "--engine", nargs="+", choices=ENGINES, default=["auto"], help="how they are run (default: auto)"
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=size,
        metavar="SIZE",
        default=[Size(256, 256), Size(512, 512), Size(1024, 1024), Size(1920, 1080), Size(2048, 2048)],
        help="such as 512 or 1920x1080, px (default: 256 512 1024 1920x1080 2048)",
    )
    parser.add_argument(
        "--batch", nargs="+", type=count, metavar="N", default=[1, 4], help="images in a batch (default: 1 4)"
    )
    parser.add_argument("--repeats", type=count, default=5, metavar="N", help="runs that count (default: %(default)s)")
    add_peer(parser)


def run(args: Namespace) -> Tables:
    """Measures the ceilings, then the style networks, then those of super-resolution."""
    device = pick_device(None)
    groups = {
        task: [Way(name, engine) for name in args.networks if task_of(name) == task for engine in args.engine]
        for task in TITLES
    }
    if args.peer:
        groups["style"].insert(0, Way(PEER, "eager", args.peer))
    prepared = {task: {way: prepare(way, device) for way in ways} for task, ways in groups.items() if ways}
    show_progress("large convolutions")
    limits = ceilings(device)
    units = dict.fromkeys(PRECISIONS, "GFLOP/s") | {COPYING: "GB/s"}
    tables = {"Ceilings": [{"at best": name, "rate": rate, "unit": units[name]} for name, rate in limits.items()]}
    for task, runs in prepared.items():
        rows = (measure(runs, each, n, args.repeats, device, limits) for each in args.sizes for n in args.batch)
        tables[TITLES[task]] = [row for each in rows for row in each]
    return tables


def prepare(way: Way, device: torch.device) -> Run:
    """The function from tensors to tensors.

    Raises:
        InvalidOption: The engine is not installed, or the peer's folder is not a checkout of it.
    """
    if not way.peer:
        return Predictor(build(way.network), {}, device=str(device), engine=way.engine)
    return torch.no_grad()(peer_module(way.peer, "transformer_net").TransformerNet().to(device).eval())


def photos(way: Way, size: Size, batch: int, device: torch.device) -> Tensor:
    """An input batch for which the network's result has this size."""
    reduced = 1 if way.peer else scale_of(way.network)
    noise = Image.effect_noise((size.width // reduced, size.height // reduced), 64).convert("RGB")
    batches = to_tensor(noise).repeat(batch, 1, 1, 1).to(device)
    return batches.mul(255) if way.peer else batches


def measure(
    runs: dict[Way, Run], size: Size, batch: int, repeats: int, device: torch.device, limits: Mapping[str, float]
) -> Iterator[Row]:
    """A row for each way, of images of one size and number; if the first is the peer, others are compared with it.

    Args:
        runs: What to run, ready.
        size: Of the results.
        batch: Images in a batch.
        repeats: Runs that count.
        device: Where they run.
        limits: From :func:`.arithmetic.ceilings`.
    """
    ways = list(runs)
    show_progress(f"{batch} × {size}: {', '.join(f'{way.network} ({way.engine})' for way in ways)}")
    inputs = {way: photos(way, size, batch, device) for way in ways}
    seconds = alternate({way: partial(runs[way], inputs[way]) for way in ways}, repeats, device)
    memory = {way: in_own_process(memory_of, way, size, batch) for way in ways}
    for way in ways:
        taken = Spread.of(seconds[way])
        most, added = memory[way]
        work = works(network(way), inputs[way].shape)
        rate = sum(each.flops for each in work) / taken.median / 1e9
        least, bytes_share = floor(work, limits, precision(way, device))
        row = {
            "network": way.network,
            "engine": way.engine,
            "image": str(size),
            "batch": batch,
            "seconds": taken,
            "images/s": batch / taken.median,
            "GFLOP/s": rate,
            **{f"% of {name}": 100 * rate / limits[name] for name in PRECISIONS},
            "floor, seconds": least,
            "bytes, %": 100 * bytes_share,
            "GiB": most,
            "GiB added": added,
        }
        if ways[0].peer:
            its_most, its_added = memory[ways[0]]
            row["times as fast"] = Spread.of_ratios(seconds[ways[0]], seconds[way])
            row |= {"of its GiB": most / its_most, "of its GiB added": added / its_added}
        yield row


def network(way: Way) -> nn.Module:
    """The network that is run."""
    module: Any = peer_module(way.peer, "transformer_net").TransformerNet() if way.peer else build(way.network)
    return module


def precision(way: Way, device: torch.device) -> str:
    """The precision in which a way computes."""
    return "bfloat16" if in_bfloat16(way.engine, device) else "float32"


def memory_of(way: Way, size: Size, batch: int) -> tuple[float, float]:
    """Peak memory of this process for one run, in GiB, and its increase over the loaded network."""
    device = pick_device(None)
    run = prepare(way, device)
    before = in_use(device)
    run(photos(way, size, batch, device))
    return peak(device), peak(device) - before
