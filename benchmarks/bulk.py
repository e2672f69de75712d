"""Measures pictures per second of `perceptual bulk`, compared with one process of `perceptual stylize`.

  python -m benchmarks bulk
  python -m benchmarks bulk --actors 1 2 4 --size 1024 --photos 60

The default style network stylizes JPEG photos of noise, with one thread for each process or actor. Commands take turns.
`photos/s` is the rate from the first result to the last, by the times of the files; `of one process` is its ratio to
the rate of `perceptual stylize` in the same round. `first, s` is the time until the first result, in which Ray starts
and actors import PyTorch. `again` is the time of `perceptual stylize` divided by that of the whole command, start
included.
"""

import os
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from perceptual.errors import PerceptualError
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.weights import save_network

from .arguments import count
from .photos import noise
from .report import Row, Tables, show_progress
from .timing import Spread

PERCEPTUAL = [sys.executable, "-c", "import sys; from perceptual.commands import main; sys.exit(main())"]


class Pace(NamedTuple):
    """The speed of a command: photos per second, seconds until the first result, and seconds in total."""

    rate: float
    first: float
    seconds: float


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the benchmark's options."""
    parser.add_argument("--size", type=count, default=256, help="side of the square photos, px (default: %(default)s)")
    parser.add_argument("--photos", type=count, default=150, metavar="N", help="of each command (default: %(default)s)")
    parser.add_argument(
        "--actors", nargs="+", type=count, metavar="N", default=[1, 2], help="of perceptual bulk (default: 1 2)"
    )
    parser.add_argument("--engine", default="auto", help="how the network is run (default: %(default)s)")
    parser.add_argument("--repeats", type=count, default=3, metavar="N", help="rounds (default: %(default)s)")


def run(args: Namespace) -> Tables:
    """Runs the commands in turn."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, weights = Path(scratch, "photos"), Path(scratch, "network.safetensors")
        save_network(weights, StyleNetwork(), {})
        folder.mkdir()
        for number in range(args.photos):
            (folder / f"{number}.jpg").write_bytes(noise(args.size))
        options = [*("--model", str(weights)), *("--engine", args.engine)]
        commands = {"stylize": ["stylize", str(folder), *options, "-o"]}
        for actors in args.actors:
            named = f"bulk, {actors} {'actor' if actors == 1 else 'actors'}"
            commands[named] = ["bulk", *options, "--actors", str(actors), str(folder)]
        paces: dict[str, list[Pace]] = {name: [] for name in commands}
        for number in range(args.repeats):
            for name, command in commands.items():
                show_progress(f"{name}: round {number + 1} of {args.repeats}")
                paces[name].append(measure(command, Path(scratch, f"{name} {number}")))
    return {f"{args.photos} JPEG photos of {args.size}²": [row(name, paces) for name in paces]}


def measure(command: Sequence[str], output: Path) -> Pace:
    """Runs a command with the output folder as last argument; returns its pace. Raises PerceptualError if it fails."""
    begin = time.time()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*PERCEPTUAL, *command, str(output)], env=environment, capture_output=True, text=True)
    end = time.time()
    if done.returncode:
        raise PerceptualError(done.stderr.strip())
    written = sorted(file.stat().st_mtime for file in output.glob("*.jpg"))
    return Pace((len(written) - 1) / (written[-1] - written[0]), written[0] - begin, end - begin)


def row(name: str, paces: dict[str, list[Pace]]) -> Row:
    """The table's row for a command."""
    own, plain = paces[name], paces["stylize"]
    return {
        "command": name,
        "photos/s": Spread.of(each.rate for each in own),
        "of one process": Spread.of_ratios((each.rate for each in own), (each.rate for each in plain)),
        "first, s": Spread.of(each.first for each in own),
        "again": Spread.of_ratios((each.seconds for each in plain), (each.seconds for each in own)),
    }
