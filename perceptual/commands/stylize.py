"""``perceptual stylize``: stylizes photos, in this process or at a server."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from ..errors import InvalidOption
from ..options import StyleOptions
from ..settings import parse
from .arguments import add_settings, given
from .photos import add_learned, add_photos, convert, others_below, plan
from .remote import add_remote, sender

DESCRIPTION = """Stylizes photos, without a server or with one.

  perceptual stylize photo.jpg --model starry_night -o stylized.jpg
  perceptual stylize holiday/ --model mine -o stylized/ --strength 0.7
  perceptual stylize photo.jpg --model styles.safetensors --style starry_night:0.6,udnie:0.4 -o mixed.jpg
  perceptual stylize photo.jpg --model styles --learned mine.safetensors --style mine:0.7,udnie:0.3 -o mixed.jpg
  perceptual stylize photo.jpg --model starry_night --url http://127.0.0.1:8080 -o stylized.jpg
  cat photo.jpg | perceptual stylize - --model starry_night -o - > stylized.jpg

Strokes have a fixed size in pixels, too small to be seen on a large photo. So a photo of more than 4 megapixels is
stylized at 1.5 megapixels or more, then enlarged to its own size by super-resolution. --own-size turns this off, for
fine strokes. --max-size reduces the photo first: the result has this size, and coarser strokes.

A file that cannot be read is reported and skipped; the exit status is then 1.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("stylize", help="stylize photos", description=DESCRIPTION)
    parser.add_argument("--model", required=True, help="a weights file, or a network's name")
    add_learned(parser)
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
    convert_one = sender(args, args.model, given(args, StyleOptions)) if args.url else local_conversion(args, options)
    return convert(jobs, convert_one, "stylized", args.output, others_below(args.photos))


def local_conversion(args: Namespace, options: StyleOptions) -> Callable[[bytes, str], bytes]:
    """A function that maps a photo's content and a format to the result's content, by a network in this process."""
    from ..inference.conversion import Conversion, upscaler_on
    from ..inference.predictor import load

    upscaler = None if args.own_size else upscaler_on(args.device, args.engine)
    return Conversion(load(args.model, args.device, args.engine, styles=args.learned), options, upscaler)
