"""``perceptual stylize``: stylizes photos, in this process or at a server."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InvalidOption
from ..options import SCALES, StyleOptions
from ..settings import OneOf, parse
from .arguments import add_settings, converter, given
from .photos import STYLES, add_learned, add_photos, convert, others_below, plan
from .remote import add_remote, sender
from .upscale import default_network

DESCRIPTION = """Stylizes photos, without a server or with one.

  perceptual stylize photo.jpg --style starry_night -o stylized.jpg
  perceptual stylize photo.jpg --style starry_night:0.6,udnie:0.4 -o mixed.jpg
  perceptual stylize photo.jpg --style udnie --scale 4 -o large.jpg
  perceptual stylize holiday/ --model mine -o stylized/ --strength 0.7
  perceptual stylize photo.jpg --learned mine.safetensors --style mine:0.7,udnie:0.3 -o mixed.jpg
  perceptual stylize photo.jpg --style udnie --url http://127.0.0.1:8080 -o stylized.jpg
  cat photo.jpg | perceptual stylize - --style udnie -o - > stylized.jpg

`perceptual styles` lists the styles.

Strokes have a fixed size in pixels, too small to be seen on a large photo. So a photo of more than 4 megapixels is
stylized at 1.5 megapixels or more, then enlarged to its own size by super-resolution. --own-size turns this off, for
fine strokes, and so do --max-size and --scale. --max-size reduces the photo first: the result has this size, and
coarser strokes. --scale enlarges the result by super-resolution.

A file that cannot be read is reported and skipped; the exit status is then 1.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("stylize", help="stylize photos", description=DESCRIPTION)
    parser.add_argument("--model", default=STYLES, help="a weights file, or a network's name (default: %(default)s)")
    add_learned(parser)
    parser.add_argument(
        "--scale", type=converter(OneOf(SCALES)), metavar="{2,4,8}", help="enlarge the result; default: not enlarged"
    )
    add_photos(parser)
    add_own_size(parser)
    add_remote(parser)
    add_settings(parser, StyleOptions)
    parser.set_defaults(run=run)


def add_own_size(parser: ArgumentParser) -> None:
    """Adds the argument for stylizing large photos at their own size."""
    parser.add_argument(
        "--own-size", action="store_true", help="stylize large photos at their own size too, which takes longer"
    )


def run(args: Namespace) -> int:
    """Stylizes every photo; returns 1 if one failed."""
    options = parse(StyleOptions, given(args, StyleOptions))
    if args.url and args.own_size:
        raise InvalidOption("--own-size does not work with --url; use --max-size to choose the size")
    if args.url and args.learned:
        raise InvalidOption(
            "--learned does not work with --url; to add a style to a server: perceptual models register FILE"
        )
    jobs = plan(args.photos, args.output, options.format)
    if args.url:
        factor = {"scale": args.scale} if args.scale else {}
        convert_one, done = sender(args, args.model, given(args, StyleOptions) | factor), "stylized"
    else:
        convert_one, done = local_conversion(args, options)
    output = Path(args.output)
    return convert(jobs, convert_one, done, output, others_below(args.photos))


def local_conversion(args: Namespace, options: StyleOptions) -> tuple[Callable[[bytes, str], bytes], str]:
    """A function that maps a photo's content and a format to the result's content, and a participle for the summary."""
    from ..inference.conversion import Conversion, upscaler_on
    from ..inference.predictor import load

    upscaler = None if args.own_size else upscaler_on(args.device, args.engine)
    enlarger = load(default_network(args.scale), args.device, args.engine) if args.scale else None
    predictor = load(args.model, args.device, args.engine, styles=args.learned)
    stylize = Conversion(predictor, options, upscaler, enlarger=enlarger)
    return stylize, stylize.done
