"""``perceptual import``: imports networks of other projects."""

from argparse import Namespace
from pathlib import Path
from shlex import quote
from typing import Any

from ..errors import InputError
from ..exchange.layouts import LAYOUTS
from ..naming import checked_name
from ..settings import Text
from .arguments import converter

DESCRIPTION = """Converts a style network of another project to a weights file that gives the same pictures.

  perceptual import mosaic.pth --licence BSD-3-Clause
  perceptual import mosaic.pth --from pytorch-examples --licence BSD-3-Clause -o elsewhere/mosaic.safetensors
  perceptual stylize photo.jpg --model mosaic -o stylized.jpg

By default the file is written to networks/, where all commands find it by its name. It records its source and the
licence under which you may use it (see perceptual inspect). Supported are the networks of pytorch/examples
(fast_neural_style), gordicaleksa/pytorch-neural-style-transfer-johnson and yakhyo/fast-neural-style-transfer. A file
that contains more than weights is refused, as it could run code.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("import", help="convert a network of another project", description=DESCRIPTION)
    parser.add_argument("file", type=Path, metavar="FILE", help="a weights file of the project: .pth, .model, …")
    parser.add_argument(
        "--from",
        dest="layout",
        choices=LAYOUTS,
        metavar="PROJECT",
        help=f"{', '.join(LAYOUTS)}; default: recognized by the names of the weights",
    )
    parser.add_argument(
        "--licence",
        type=converter(Text("a licence")),
        required=True,
        help="the network's licence, such as BSD-3-Clause; if in doubt, ask its author",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="weights file; default: networks/NAME.safetensors",
    )
    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Imports a network, unless the output exists."""
    from ..inference.metadata import OWN

    output = args.output or OWN / f"{args.file.stem}.safetensors"
    checked_name(output.stem, f"{output}: choose another --output")
    if output.exists():
        raise InputError(f"{output} already exists: remove it, or choose another --output")

    from ..exchange.importing import import_network
    from ..inference.weights import save_network

    network, provenance = import_network(args.file, args.layout, licence=args.licence)
    save_network(output, network, provenance | {"name": output.stem})
    print(f"{output} is imported from {provenance['imported']['repository']}. Try it: ", end="")
    print(f"perceptual stylize PHOTO --model {quote(str(output)) if args.output else output.stem} -o stylized.jpg")
