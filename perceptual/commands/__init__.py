"""The command line, ``perceptual``: one module for each command, which imports slow packages only when it runs."""

import sys
from importlib import import_module

from .. import __version__
from ..errors import PerceptualError
from ..extras import needing_extras
from .arguments import Parser, report

COMMANDS = (
    "stylize",
    "upscale",
    "video",
    "bulk",
    "optimize",
    "gallery",
    "train",
    "learn",
    "evaluate",
    "styles",
    "inspect",
    "import",
    "export",
    "package",
    "serve",
    "models",
    "status",
    "token",
    "demo",
    "completion",
)

DESCRIPTION = """Style transfer and super-resolution with perceptual losses, served by TorchServe.

  perceptual stylize photo.jpg --style starry_night -o stylized.jpg
  perceptual upscale photo.jpg --scale 4 -o large.jpg
  perceptual train style --style-image painting.jpg --content-dir photos/
  perceptual serve"""


def build_parser(first: str | None = None) -> Parser:
    """The parser of the command line; if ``first`` is a command, only of that command, which is faster to build."""
    parser = Parser(prog="perceptual", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"torchserve-perceptual {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in [first] if first in COMMANDS else COMMANDS:
        import_module(f".{name}", __name__).add_to(subparsers)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line, by default the program's own, and returns its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        args = build_parser(next(iter(arguments), None)).parse_args(arguments)
        with needing_extras():
            return args.run(args) or 0
    except PerceptualError as error:
        report(f"perceptual: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as head, has stopped reading
        sys.stderr.close()
        return 0
    except OSError as error:  # such as a folder without write permission, or a full disk
        report(f"perceptual: {error.filename}: {error.strerror}" if error.filename else f"perceptual: {error}")
        return 1
