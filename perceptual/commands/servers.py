"""Which running server a command is about."""

from argparse import Namespace
from pathlib import Path
from typing import Any


def add_server(parser: Any) -> None:
    """Adds the options that say which server is meant."""
    group = parser.add_argument_group("server")
    group.add_argument("--port", type=int, help="its inference port; default: the one started last on this machine")
    group.add_argument("--url", help="its management address, if `perceptual serve` did not start it")
    group.add_argument("--key-file", type=Path, metavar="FILE", help="with --url: its key_file.json")


def management(args: Namespace) -> Any:
    """A client of the management API of the server that is meant. Raises ServerError if there is none."""
    from ..client import ManagementClient, find_server

    return ManagementClient(args.url, tokens(args, "management")) if args.url else find_server(args.port).management()


def tokens(args: Namespace, kind: Any) -> Any:
    """The tokens of the server that is meant, None if it has none. Raises as :func:`management`."""
    from ..client import Tokens, find_server

    if not args.url:
        return find_server(args.port).tokens(kind)
    return Tokens(args.key_file, kind, args.url) if args.key_file else None
