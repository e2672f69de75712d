"""``perceptual upscale``: enlarges photos, in this process or at a server."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InvalidOption
from ..options import SCALES, UpscaleOptions
from ..settings import OneOf, parse
from .arguments import add_settings, converter, given
from .photos import add_photos, convert, others_below, plan
from .remote import add_remote, sender

DESCRIPTION = """Enlarges photos 2, 4 or 8 times, without a server or with one.

  perceptual upscale photo.jpg --scale 4 -o large.jpg
  perceptual upscale photo.jpg --scale 2 --fidelity 0 -o crisp.jpg
  perceptual upscale holiday/ --model mine -o large/ --no-histogram-matching
  perceptual upscale photo.jpg --url https://example.org --key KEY -o large.jpg

A file that cannot be read, or would become too large, is reported and skipped; the exit status is then 1.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("upscale", help="enlarge photos", description=DESCRIPTION)
    factor = OneOf(SCALES)
    parser.add_argument(
        "--scale",
        type=converter(factor),
        metavar="{2,4,8}",
        help="factor of enlargement; default: the model's, else 4",
    )
    parser.add_argument("--model", help="a weights file, or a network's name; default: super_resolution_xSCALE")
    add_photos(parser)
    add_remote(parser)
    add_settings(parser, UpscaleOptions)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Enlarges every photo; returns 1 if one failed."""
    options = parse(UpscaleOptions, given(args, UpscaleOptions))
    jobs = plan(args.photos, args.output, options.format)

    name = args.model or default_network(args.scale)
    if args.url:
        factor = {"scale": args.scale} if args.model and args.scale else {}  # of a collection
        convert_one, done = sender(args, name, given(args, UpscaleOptions) | factor), "enlarged"
    else:
        convert_one, done = local_conversion(args, name, options)
    output = Path(args.output)
    return convert(jobs, convert_one, done, output, others_below(args.photos))


def default_network(scale: int | None) -> str:
    """The network that ships for a factor, by default 4."""
    return f"super_resolution_x{scale or 4}"


def local_conversion(args: Namespace, name: str, options: UpscaleOptions) -> tuple[Callable[[bytes, str], bytes], str]:
    """A function that maps a photo's content and a format to the result's content, and a participle for the summary."""
    from ..inference.conversion import Conversion
    from ..inference.predictor import load

    upscale = Conversion(load(name, args.device, args.engine), options)
    scale = upscale.predictor.network.scale
    if args.scale not in (None, scale):
        raise InvalidOption(f"scale: {args.model} enlarges {scale} times, not {args.scale}")
    return upscale, upscale.done
