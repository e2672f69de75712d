"""Runs the benchmarks and writes Markdown and JSON.

python -m benchmarks
python -m benchmarks --sizes 256 512 --repeats 9 -o results/
"""

import argparse
import json
from pathlib import Path

from perceptual.weights import write_atomically

from .inference import measure
from .report import machine, markdown


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024], help="sides of the square images, px")
    parser.add_argument("--repeats", type=int, default=5, help="measurements, of which the median counts (default: 5)")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/bench"), help="folder (default: %(default)s)")
    args = parser.parse_args()
    facts = machine()
    print(facts, "\n", sep="")
    rows = list(measure(args.sizes, args.repeats))
    table = markdown(rows)
    print("\n", table, sep="")
    write_atomically(args.output / "inference.md", f"{facts}\n\n{table}\n".encode())
    write_atomically(args.output / "inference.json", json.dumps({"machine": facts, "rows": rows}, indent=2).encode())
    print(f"\nwritten to {args.output}/inference.md and .json")


if __name__ == "__main__":
    main()
