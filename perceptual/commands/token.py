"""``perceptual token``: prints a valid token of the running server."""

from argparse import Namespace
from typing import Any

from ..errors import InputError
from .servers import add_server, server_of

DESCRIPTION = """Prints a token of the server that `perceptual serve` started, renewed if it is about to expire.

  curl -H "Authorization: Bearer $(perceptual token)" -H "X-Style: udnie" -T photo.jpg \\
      http://127.0.0.1:8080/predictions/styles
  perceptual token page                                    an address of the server's page, for one browser

With --url and --key-file, a token of a server that was started in another way.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("token", help="print a valid token of the running server", description=DESCRIPTION)
    kinds = ("inference", "management", "page")
    parser.add_argument("kind", nargs="?", choices=kinds, default="inference", help="what the token is for")
    add_server(parser)
    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Prints the token alone, for use in a command line."""
    if args.url and not args.key_file:
        raise InputError("the tokens of a server are in its key file: name it with --key-file")
    server = server_of(args)
    if args.kind == "page":
        print(server.page())
        return
    tokens = server.tokens(args.kind)
    print(tokens.valid() if tokens else "")
