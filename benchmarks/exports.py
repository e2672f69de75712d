"""Measures size and speed of exported networks, compared with ours.

  python -m benchmarks exports
  python -m benchmarks exports --models styles super_resolution_x4 --sizes 256 512

Every network is exported to every format, in single and in half precision, and run by the format's runtime on the CPU:
from tensor to tensor, one image at a time, all in turn. `times as fast` compares with plain PyTorch (`eager`). For
super-resolution, the size is the result's.
"""

import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from perceptual.exchange.exporting import export
from perceptual.exchange.formats import FORMATS
from perceptual.inference.metadata import find_weights
from perceptual.inference.predictor import load

from .arguments import Size, count, size
from .report import Row, Tables, show_progress
from .styles import first_style, style_options
from .timing import Spread, alternate

ENGINES = ("eager", "auto")


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the benchmark's options."""
    parser.add_argument(
        "--models", nargs="+", default=["styles"], metavar="MODEL", help="weights files or names (default: styles)"
    )
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=[*FORMATS], help="default: all")
    parser.add_argument("--sizes", nargs="+", type=size, metavar="SIZE", default=[Size(256, 256), Size(512, 512)])
    parser.add_argument("--repeats", type=count, default=5, metavar="N", help="runs that count (default: %(default)s)")


def run(args: Namespace) -> Tables:
    """Exports and measures network after network."""
    with tempfile.TemporaryDirectory() as folder:
        return {model: [*measure(model, Path(folder), args)] for model in args.models}


def measure(model: str, folder: Path, args: Namespace) -> Iterator[Row]:
    """A row for each way to run a network, and each size."""
    ours = {f"ours, {engine}": load(model, "cpu", engine) for engine in ENGINES}
    style, options = first_style(ours["ours, eager"]), style_options(ours["ours, eager"])
    bytes_of = dict.fromkeys(ours, find_weights(model).stat().st_size)
    runs: dict[str, Callable[[dict[str, np.ndarray]], object]] = {}
    for format in args.formats:
        for half in (False, True):
            name = f"{format}, {'float16' if half else 'float32'}"
            show_progress(f"exporting {model} to {name}")
            exported = export(model, format, folder / f"{name}{FORMATS[format]}", options, half=half)
            bytes_of[name] = sum(file.stat().st_size for file in exported.files)
            runs[name] = import_module(f"perceptual.exchange.{format}").load(exported.files[-1])
    scale = ours["ours, eager"].network.scale
    for each in args.sizes:
        show_progress(f"{model}, {each}")
        images = torch.rand(1, 3, each.height // scale, each.width // scale)
        inputs = {"images": images.numpy()}
        ways: dict[str, Callable[[], object]] = {
            name: partial(predictor, images, **style) for name, predictor in ours.items()
        }
        ways |= {name: partial(run, inputs) for name, run in runs.items()}
        seconds = alternate(ways, args.repeats, torch.device("cpu"))
        for name in ways:
            yield {
                "run by": name,
                "image": str(each),
                "MB": bytes_of[name] / 1e6,
                "seconds": Spread.of(seconds[name]),
                "times as fast": Spread.of_ratios(seconds["ours, eager"], seconds[name]),
            }
