"""``perceptual export``: exports networks for other runtimes."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from ..exchange.formats import FORMATS
from ..options import CollectionOptions, StyleOptions
from ..settings import parse, settings_of
from .arguments import add_setting, working

BAKED = ("style", "stroke", "grain", "fidelity")  # the options of a request that can be baked in
DESCRIPTION = """Writes a network for another runtime, and checks that it gives the same picture there.

  perceptual export styles --format onnx --style starry_night -o starry_night.onnx
  perceptual export styles --format openvino --style starry_night:0.6,udnie:0.4 -o mixed.xml
  perceptual export super_resolution_x4 --format torchscript -o x4.pt

Input and output are RGB in [0, 1], of any number of images, height and width. --style bakes a style or mixture in,
--grain noise for flat areas (by default the network's own), --fidelity the weights of super-resolution.
Without --style, a network of several styles has a second input, the style's parameters, which FILE.styles.json lists
for each style. A file whose pictures differ from ours by more than 1/255 is not written. docs/export.md shows how to
use the files.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("export", help="write a network for another runtime", description=DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="a weights file, or the name of a network that ships")
    parser.add_argument("--format", required=True, choices=FORMATS, help="format of the file")
    endings = ", ".join(f"{ending} for {name}" for name, ending in FORMATS.items())
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=endings)
    for each in settings_of(CollectionOptions):
        if each.name in BAKED:
            add_setting(parser, each)
    parser.add_argument("--float16", action="store_true", help="store weights in half precision: two fifths less size")
    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Exports a network, and prints the difference between its pictures and ours."""
    given = parse(CollectionOptions, {name: getattr(args, name) for name in BAKED if hasattr(args, name)})
    options = StyleOptions(style=given.style, stroke=given.stroke, grain=given.grain)

    from ..exchange.exporting import export

    with working() as progress:
        progress(f"exporting {args.model}")
        exported = export(args.model, args.format, args.output, options, fidelity=given.fidelity, half=args.float16)
    for file in exported.files:
        print(f"{file}  {file.stat().st_size / 2**20:.2f} MiB")
    print(f"difference to our pictures in levels of 255: mean {exported.mean:.2g}, largest {exported.largest:.2g}")
