"""``perceptual token``: a valid token of the running server."""

from argparse import Namespace
from typing import Any

DESCRIPTION = """Prints a token of the server that `perceptual serve` started, renewed if it is about to expire.

  curl -H "Authorization: Bearer $(perceptual token)" -T photo.jpg http://127.0.0.1:8080/predictions/starry_night
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("token", help="print a valid token of the running server", description=DESCRIPTION)
    parser.add_argument("kind", nargs="?", choices=("inference", "management"), default="inference", help="which API")
    parser.add_argument("--port", type=int, help="inference port of the server; default: the one started last")
    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Prints the token alone, for use in a command line."""
    from ..client import find_server

    tokens = find_server(args.port).tokens(args.kind)
    print(tokens.valid() if tokens else "")
