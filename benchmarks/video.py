"""Measures the speed of stylizing videos, compared with the network alone, and the memory for long ones.

  python -m benchmarks video
  python -m benchmarks video --model styles_fast --size 480x272 --frames 60 --lengths 10 600

A clip that pans over a photo is decoded, stylized and encoded, frame by frame and steadied; `network` is the predictor
alone, on decoded frames. `times as fast` is relative to it, in the same round. Clips of each length, of 96 × 64 pixels,
are stylized frame by frame in a separate process; `GiB at most` is its peak memory.
"""

import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import torch
from av.video.stream import VideoStream
from PIL import Image

from perceptual.inference.images import Picture
from perceptual.inference.predictor import load
from perceptual.video.conversion import stylize_video

from .arguments import Size, count, size
from .photos import PHOTOS
from .process import in_own_process, peak
from .report import Row, Tables, show_progress
from .styles import first_style, style_options
from .timing import Spread, alternate

LEVELS = ("off", "normal", "strong")
RATE = 25  # frames per second
SMALL = Size(96, 64)


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the benchmark's options."""
    parser.add_argument("--model", default="styles", help="a weights file or network (default: %(default)s)")
    parser.add_argument("--size", type=size, default=Size(256, 256), metavar="WxH", help="of a frame (default: 256)")
    parser.add_argument("--frames", type=count, default=50, metavar="N", help="of the clip (default: %(default)s)")
    parser.add_argument("--repeats", type=count, default=3, metavar="N", help="rounds (default: %(default)s)")
    parser.add_argument(
        "--lengths", nargs="+", type=count, default=[10, 60], metavar="N", help="in seconds (default: 10 60)"
    )


def run(args: Namespace) -> Tables:
    """Measures the speed of a short clip, and the memory of clips of some lengths."""
    return {
        "Speed": list(speed(args.model, args.size, args.frames, args.repeats)),
        "Memory": [in_own_process(memory, args.model, seconds) for seconds in args.lengths],
    }


def speed(model: str, size: Size, frames: int, repeats: int) -> Iterator[Row]:
    """A row for the network alone, and one for each level of steadiness."""
    predictor = load(model)
    pictures = [Picture(torch.from_numpy(frame).movedim(2, 0)) for frame in pan(size, frames)]

    def network() -> None:
        for picture in pictures:
            predictor.stylize_pictures([picture], [style_options(predictor)])

    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch, "clip.mp4"), Path(scratch, "stylized.mp4")
        write_clip(source, size, frames)

        def video(level: str) -> Callable[[], object]:
            return lambda: stylize_video(predictor, source, target, steady=level, **first_style(predictor))

        show_progress(f"{frames} frames of {size}, {1 + repeats} rounds")
        ways = {"network": network} | {f"steady {level}": video(level) for level in LEVELS}
        seconds = alternate(ways, repeats, predictor.device)
    for way, taken in seconds.items():
        yield {
            "way": way,
            "frame": str(size),
            "frames/s": Spread.of(frames / each for each in taken),
            "times as fast": Spread.of_ratios(seconds["network"], taken),
        }


def memory(model: str, seconds: int) -> Row:
    """Stylizes a clip of small frames; the peak is of the whole process."""
    show_progress(f"{seconds} s of {SMALL}")
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "clip.mp4")
        write_clip(source, SMALL, seconds * RATE)
        begin = time.perf_counter()
        predictor = load(model)
        target = Path(scratch, "stylized.mp4")
        report = stylize_video(predictor, source, target, steady="off", **first_style(predictor))
        taken = time.perf_counter() - begin
    return {
        "clip, s": seconds,
        "frames": report.frames,
        "seconds": taken,
        "GiB at most": peak(torch.device("cpu")),
    }


def pan(size: Size, frames: int) -> Iterator[np.ndarray]:
    """Frames, H×W×3, of a camera that moves to the right by two pixels a frame, over a repeated photo."""
    photo = np.asarray(Image.open(PHOTOS / "coffee.jpg").convert("RGB").resize((2 * size.width, size.height)))
    for number in range(frames):
        yield np.ascontiguousarray(np.roll(photo, -2 * number, axis=1)[:, : size.width])


def write_clip(path: Path, size: Size, frames: int) -> None:
    """Writes such frames as H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = size.width, size.height, "yuv420p"
        for frame in pan(size, frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
