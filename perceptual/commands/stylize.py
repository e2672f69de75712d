"""``perceptual stylize``: photos through a network, here or at a server."""

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

Strokes have a size in pixels, so that a large photo would be recoloured rather than painted. One of more than 4
megapixels is therefore painted at 1.5 or more, and enlarged to its own size by super-resolution; --own-size leaves
this out, for fine strokes. A server does the same for a collection that holds super_resolution_x4_feature. --max-size
reduces the photo first: the result is that small, and its strokes that much coarser.

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
    """Adds the argument that has large photos painted as they are."""
    parser.add_argument(
        "--own-size", action="store_true", help="paint large photos at their own size too, which takes longer"
    )


def run(args: Namespace) -> int:
    """Stylizes every photo; returns 1 if one failed."""
    options = parse(StyleOptions, given(args, StyleOptions))
    if args.url and args.own_size:
        raise InvalidOption("--own-size is for networks that run here; with --url, name the size: --max-size")
    if args.url and args.learned:
        raise InvalidOption("--learned is for networks that run here; at a server: perceptual models register FILE")
    jobs = plan(args.photos, args.output, options.format)
    make = sender(args, args.model, given(args, StyleOptions)) if args.url else maker(args, options)
    return convert(jobs, make, "stylized", args.output, others_below(args.photos))


def maker(args: Namespace, options: StyleOptions) -> Callable[[bytes, str], bytes]:
    """A function that maps a photo's content and a format to the result's content, by a network in this process."""
    from ..inference.conversion import Conversion, upscaler_on
    from ..inference.predictor import load

    upscaler = None if args.own_size else upscaler_on(args.device, args.engine)
    return Conversion(load(args.model, args.device, args.engine, styles=args.learned), options, upscaler)
