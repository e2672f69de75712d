"""``perceptual package``: weights into archives."""

from argparse import Namespace
from pathlib import Path
from typing import Any

DESCRIPTION = """Packages networks as TorchServe archives (.mar), where something has changed.

  perceptual package                       all networks that ship
  perceptual package starry_night mine.safetensors --model-store model_store

An archive is self-contained: a TorchServe that has torch, numpy, Pillow and safetensors serves it.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("package", help="package networks as TorchServe archives", description=DESCRIPTION)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="weights files or names; default: all that ship")
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
    """Packages every network named and says which archives are new."""
    from ..archive import package
    from ..weights import find_weights, shipped_weights

    for model in args.models or shipped_weights():
        archive, built = package(find_weights(model), args.model_store)
        print(f"{archive} {'built' if built else 'is up to date'}", flush=True)
