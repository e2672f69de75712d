"""``perceptual token``: a valid token of the running server."""

from argparse import Namespace
from typing import Any

from ..errors import InputError
from .servers import add_server, server_of

DESCRIPTION = """Prints a token of the server that `perceptual serve` started, renewed if it is about to expire.

  curl -H "Authorization: Bearer $(perceptual token)" -T photo.jpg http://127.0.0.1:8080/predictions/starry_night

With --url and --key-file, one of a server that was started otherwise.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("token", help="print a valid token of the running server", description=DESCRIPTION)
    parser.add_argument("kind", nargs="?", choices=("inference", "management"), default="inference", help="which API")
    add_server(parser)
    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Prints the token alone, for use in a command line."""
    if args.url and not args.key_file:
        raise InputError("the tokens of a server are in its key file: name it with --key-file")
    tokens = server_of(args).tokens(args.kind)
    print(tokens.valid() if tokens else "")
