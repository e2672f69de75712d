"""``perceptual upscale``: larger photos, without a server."""

from argparse import Namespace
from typing import Any

from ..errors import InvalidOption
from ..options import UpscaleOptions
from ..settings import OneOf, parse
from .arguments import add_settings, converter, given
from .photos import add_photos, convert, others_below, plan

DESCRIPTION = """Enlarges photos 4 or 8 times without a server.

  perceptual upscale photo.jpg --scale 4 -o large.jpg
  perceptual upscale holiday/ --model mine -o large/ --no-histogram-matching

A file that cannot be read, or would become too large, is reported and skipped; the exit status is then 1.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("upscale", help="enlarge photos without a server", description=DESCRIPTION)
    factor = OneOf((4, 8))
    parser.add_argument(
        "--scale", type=converter(factor), metavar="{4,8}", help="enlargement factor; default: that of --model, else 4"
    )
    parser.add_argument("--model", help="a weights file, or a network's name; default: super_resolution_xSCALE_feature")
    add_photos(parser)
    add_settings(parser, UpscaleOptions)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Enlarges every photo; returns 1 if one failed."""
    options = parse(UpscaleOptions, given(args, UpscaleOptions))
    jobs = plan(args.photos, args.output, options.format)

    from ..inference.conversion import Conversion
    from ..inference.predictor import load

    predictor = load(args.model or default_network(args.scale), args.device, args.engine)
    upscale = Conversion(predictor, options)
    if args.scale not in (None, predictor.network.scale):
        raise InvalidOption(f"scale: {args.model} enlarges {predictor.network.scale} times, not {args.scale}")
    return convert(jobs, upscale, upscale.done, args.output, others_below(args.photos))


def default_network(scale: int | None) -> str:
    """The network that ships for a factor, by default 4."""
    return f"super_resolution_x{scale or 4}_feature"
