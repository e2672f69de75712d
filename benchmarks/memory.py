"""How much memory and time a large picture takes, each in a process of its own.

python -m benchmarks.memory starry_night 1024 2048 4096 8192
python -m benchmarks.memory super_resolution_x4_feature 512 2048
"""

import argparse
import json
import re
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image

from perceptual import images
from perceptual.options import StyleOptions, UpscaleOptions
from perceptual.predictor import load

from .report import machine, markdown


def main() -> None:
    """Prints a row for each size."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a weights file, or the name of a network that ships")
    parser.add_argument("sizes", type=int, nargs="+", help="sides of the square photos, px")
    parser.add_argument("--tile", type=int, help="as the option of a picture")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args.model, args.sizes[0], args.tile)))
        return
    print(machine(), "\n")
    rows = []
    for size in args.sizes:
        command = [sys.executable, "-m", "benchmarks.memory", args.model, str(size), "--here"]
        command += ["--tile", str(args.tile)] if args.tile else []
        rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
        print(rows[-1], file=sys.stderr)
    print(markdown(rows))


def measure(model: str, size: int, tile: int | None) -> dict[str, object]:
    """Decodes, runs and encodes a photo; the peak is of the whole process, what it takes before included."""
    predictor = load(model, "cpu")
    before = peak()
    buffer = BytesIO()
    Image.effect_noise((size, size), 64).convert("RGB").save(buffer, "JPEG")
    begin = time.perf_counter()
    picture = images.decode(buffer.getvalue(), max_pixels=size * size)
    if predictor.network.task == "style":
        (result,) = predictor.stylize_pictures([picture], [StyleOptions(tile=tile)])
    else:
        (result,) = predictor.upscale_pictures([picture], [UpscaleOptions(tile=tile)])
    images.encode(result, "jpeg")
    return {
        "network": model,
        "photo": f"{size}²",
        "seconds": round(time.perf_counter() - begin, 1),
        "GiB before": before,
        "GiB at most": peak(),
        "threads": torch.get_num_threads(),
    }


def peak() -> float:
    """The most memory this process has held so far, in GiB; getrusage would tell the parent's, were that more."""
    (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return round(int(kib) / 2**20, 2)


if __name__ == "__main__":
    main()
