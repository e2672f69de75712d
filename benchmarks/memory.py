"""Measures memory and time for a large picture, from its file to the file of the result.

  python -m benchmarks memory
  python -m benchmarks memory --model styles mine.safetensors --sizes 1024 2048 4096 8192

A photo of noise is decoded, stylized or enlarged, and encoded, on the CPU, once, in a separate process for each size.
`GiB at most` is the peak memory of the process, `GiB before` its memory before the photo is read.
"""

import time
from argparse import ArgumentParser, Namespace
from dataclasses import replace

import torch

from perceptual.commands.arguments import converter
from perceptual.inference import images
from perceptual.inference.predictor import load
from perceptual.options import TILE, UpscaleOptions

from .arguments import count
from .photos import noise
from .process import in_own_process, in_use, peak
from .report import Row, Tables, show_progress
from .styles import style_options


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the benchmark's options."""
    parser.add_argument(
        "--model",
        nargs="+",
        default=["styles"],
        help="weights files or names of networks (default: styles)",
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=count,
        metavar="SIZE",
        default=[512, 1024, 2048, 4096],
        help="sides of the square photos, px (default: 512 1024 2048 4096)",
    )
    parser.add_argument("--tile", type=converter(TILE), metavar="N", help="as the option of a picture")


def run(args: Namespace) -> Tables:
    """Measures every network at every size."""
    rows = []
    for model in args.model:
        load(model, "cpu")  # fails now, not after hours, if a network is missing
        for size in args.sizes:
            show_progress(f"{model} at {size}²")
            rows.append(in_own_process(measure, model, size, args.tile))
    return {"Large pictures": rows}


def measure(model: str, size: int, tile: int | None) -> Row:
    """Decodes, runs and encodes a photo; the peak is that of the whole process since its start."""
    cpu = torch.device("cpu")
    predictor = load(model, "cpu")
    photo = noise(size)
    before = in_use(cpu)
    begin = time.perf_counter()
    picture = images.decode(photo, max_pixels=size * size)
    if predictor.network.task == "style":
        (result,) = predictor.stylize_pictures([picture], [replace(style_options(predictor), tile=tile)])
    else:
        (result,) = predictor.upscale_pictures([picture], [UpscaleOptions(tile=tile)])
    images.encode(result, "jpeg")
    seconds = time.perf_counter() - begin
    return {
        "network": model,
        "photo": f"{size}²",
        "seconds": seconds,
        "GiB before": before,
        "GiB at most": peak(cpu),
        "threads": torch.get_num_threads(),
    }
