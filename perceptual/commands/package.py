"""``perceptual package``: builds archives from weights."""

from argparse import Namespace
from pathlib import Path
from typing import Any

DESCRIPTION = """Packages networks as TorchServe archives (.mar). Archives that are up to date are not changed.

  perceptual package                       all networks that ship
  perceptual package styles mine --model-store model_store
  perceptual package --collection gallery styles mine super_resolution_x4

An archive is self-contained: TorchServe needs only torch, numpy, Pillow, safetensors and PyYAML to serve it. A
collection is one archive of several networks, which share its workers: requests name a style (X-Style: mine), a factor
of super-resolution (X-Scale: 4), or both. Separate archives need a worker of half a gigabyte each.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("package", help="package networks as TorchServe archives", description=DESCRIPTION)
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="weights files or names; default: all that ship, in a collection one for style and one for each factor",
    )
    parser.add_argument("--collection", metavar="NAME", help="one archive of this name for all of them")
    add_model_store(parser)
    parser.set_defaults(run=run)


def add_model_store(parser: Any) -> None:
    """Adds the option that names the folder of archives."""
    parser.add_argument(
        "--model-store",
        type=Path,
        default=Path("model_store"),
        metavar="DIR",
        help="folder of the archives (default: %(default)s)",
    )


def run(args: Namespace) -> None:
    """Packages every named network and prints which archives are new."""
    from ..archives.build import package, package_collection
    from ..inference.metadata import find_distinct, for_one_collection, shipped_weights

    shipped = for_one_collection(shipped_weights()) if args.collection else shipped_weights()
    files = [*find_distinct(args.models or shipped).values()]
    if args.collection:
        archives = [package_collection(args.collection, files, args.model_store)]
    else:
        archives = [package(file, args.model_store) for file in files]
    for archive, built in archives:
        print(f"{archive} {'built' if built else 'is up to date'}", flush=True)
