"""``perceptual inspect``: the metadata of a weights file."""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any

from .output import add_json, as_json


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "inspect",
        help="print the metadata of weights",
        description="Prints a weights file's task, architecture and provenance.",
    )
    parser.add_argument("model", metavar="FILE", help="a weights file, or a network's name")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Prints the metadata."""
    from ..inference.metadata import find_weights, read_metadata

    path = find_weights(args.model)
    metadata = {"file": str(path), "bytes": path.stat().st_size, **read_metadata(path)}
    if args.json:
        print(as_json(metadata))
    else:
        rows = list(flatten(metadata))
        width = max(len(name) for name, _ in rows)
        print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))


def flatten(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values as pairs of a dotted name and a value."""
    for name, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            value = dict(enumerate(value, 1))
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, " ".join(map(str, value)) if isinstance(value, list) else value
