"""``perceptual styles``: lists the available styles."""

import sys
from argparse import Namespace
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import ServerError, WeightsError
from .output import add_json, as_json, console, table
from .servers import add_server, server_of

DESCRIPTION = """Lists the styles that ship, those in networks/, and those of the running server, with their paintings,
and where each is: the networks that ship and have it, a file, or a model of the server.

  perceptual styles
  perceptual styles --json
  perceptual styles --url http://10.0.0.7:8081 --key-file key_file.json

The server is the one that `perceptual serve` started last, if there is one.
"""
COLUMNS = ("style", "painting", "artist", "where", "picture of it")


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("styles", help="list the available styles", description=DESCRIPTION)
    add_json(parser)
    add_server(parser)
    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Prints a row for each style."""
    styles = [*local(), *served(args)]
    if args.json:
        print(as_json(styles))
    else:
        console().print(table(COLUMNS, map(row, styles)))


def row(style: dict[str, Any]) -> list[str]:
    """The table's row for a style."""
    painting = ", ".join(str(style[fact]) for fact in ("title", "year") if fact in style)
    return [style["name"], painting, style.get("artist", ""), style["where"], style.get("picture", "")]


def local() -> Iterator[dict[str, Any]]:
    """The styles of networks that ship, and of the user's own; a file that cannot be read is told on standard error."""
    from ..inference.metadata import own_weights, shipped_weights

    shipped: dict[str, dict[str, Any]] = {}
    for name, file in shipped_weights().items():
        for style in styles_of(file, name):
            if style["name"] in shipped:
                shipped[style["name"]]["where"] += f", {name}"
            else:
                shipped[style["name"]] = style
    yield from shipped.values()
    for file in own_weights().values():
        yield from styles_of(file, str(file))


def styles_of(file: Path, where: str) -> list[dict[str, Any]]:
    """The styles of a network, with the pictures of their paintings; none if it cannot be read."""
    from ..inference.metadata import styles_in

    try:
        found = zip(styles_in(file), pictures_of(file), strict=False)
        return [{**facts, "where": where, **picture} for facts, picture in found]
    except WeightsError as error:
        print(error, file=sys.stderr)
        return []


def pictures_of(file: Path) -> Iterator[dict[str, str]]:
    """For each style of a network, the picture of its painting, if that ships with this package."""
    from ..inference.metadata import known_styles, read_metadata

    training = find_spec("perceptual_training")
    folders = [Path(each, "paintings") for each in (training and training.submodule_search_locations) or []]
    for style in known_styles(read_metadata(file)["provenance"], file.stem):
        found = [each for folder in folders if (each := folder / style.get("style_image", "")).is_file()]
        yield {"picture": str(found[0])} if found else {}


def served(args: Namespace) -> Iterator[dict[str, Any]]:
    """The styles of a server's models; none if no server is named and none is running.

    What one model, or a server that is not named, does not tell is a line on standard error: the others are listed.
    """
    named = args.port is not None or args.url
    try:
        server = server_of(args)
    except ServerError:
        if named:
            raise
        return
    with server.management() as management:
        try:
            models = management.models()
        except ServerError as error:
            if named:
                raise
            print(error, file=sys.stderr)
            return
        for model in models:
            try:
                styles = management.capabilities(model)["styles"]
            except ServerError as error:  # as of a model without workers
                print(f"{model} does not tell its styles: {error}", file=sys.stderr)
                continue
            yield from ({**facts, "where": f"/predictions/{model}"} for facts in styles)
