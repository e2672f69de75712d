"""Measures how fast networks, trainings and the server are on this machine.

  python -m benchmarks inference
  python -m benchmarks serving --concurrency 1 4
  python -m benchmarks training --peer examples/fast_neural_style
  python -m benchmarks NAME --help

Each prints its progress, then its tables, and writes them as NAME.md and NAME.json to the folder --output, with machine
and versions. Alternatives are measured in turn, within one run. A figure with a range is the median, with minimum and
maximum in parentheses. Networks whose weights do not matter have random weights; nothing is downloaded.
"""

import shlex
import sys
from importlib import import_module
from pathlib import Path

from perceptual.commands.arguments import Parser, report
from perceptual.errors import InvalidOption, PerceptualError

NAMES = (
    "inference",
    "memory",
    "training",
    "optimization",
    "serving",
    "arrivals",
    "collection",
    "bulk",
    "page",
    "video",
    "exports",
)


def build_parser() -> Parser:
    """The parser of the whole command line; each benchmark's help is its module's docstring."""
    parser = Parser(prog="python -m benchmarks", description=__doc__)
    subparsers = parser.add_subparsers(title="benchmarks", metavar="NAME", required=True)
    for name in NAMES:
        module = import_module(f".{name}", __package__)
        summary, _, _ = str(module.__doc__).partition("\n")
        each = subparsers.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(each)
        each.add_argument(
            *("-o", "--output"), type=Path, default=Path("runs/bench"), help="folder (default: %(default)s)"
        )
        each.set_defaults(name=name, run=module.run)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line, by default the program's own, and returns its exit status."""
    from .report import machine, write

    arguments = sys.argv[1:] if arguments is None else arguments
    args = build_parser().parse_args(arguments)
    try:
        make_folder(args.output)
        facts = machine()
        tables = args.run(args)
    except PerceptualError as error:
        report(f"{args.name}: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    print(write(args.output, args.name, f"python -m benchmarks {shlex.join(arguments)}", facts, tables))
    print(f"in {args.output}/{args.name}.md and .json")
    return 0


def make_folder(folder: Path) -> None:
    """Creates the output folder. Raises InvalidOption if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidOption(f"--output {folder}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
