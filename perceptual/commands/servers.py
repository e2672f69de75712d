"""Options that name a running server."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from ..errors import InputError


def add_server(parser: Any) -> None:
    """Adds the options that name the server."""
    group = parser.add_argument_group("server")
    group.add_argument("--port", type=int, help="its inference port; default: the one started last on this machine")
    group.add_argument("--url", help="its management address, if `perceptual serve` did not start it")
    group.add_argument("--key-file", type=Path, metavar="FILE", help="with --url: its key_file.json")


def server_of(args: Namespace) -> Any:
    """The server that the options name.

    Raises:
        InputError: ``--url`` is malformed, or the options contradict each other.
        ServerError: There is no such server on this machine.
    """
    from ..client.addresses import find_server, server_at

    if args.url and args.port is not None:
        raise InputError("--url and --port both name a server: give only one")
    if args.key_file and not args.url:
        raise InputError("--key-file needs --url; for a server on this machine it is found automatically")
    return server_at(args.url, args.key_file) if args.url else find_server(args.port)
