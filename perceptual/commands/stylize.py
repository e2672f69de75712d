"""``perceptual stylize``: photos through a network, without a server."""

from argparse import Namespace
from typing import Any

from ..options import StyleOptions
from ..settings import parse
from .arguments import add_settings, given
from .photos import add_photos, convert, others_below, plan

DESCRIPTION = """Stylizes photos without a server.

  perceptual stylize photo.jpg --model starry_night -o stylized.jpg
  perceptual stylize holiday/ --model mine -o stylized/ --strength 0.7
  perceptual stylize photo.jpg --model styles.safetensors --style starry_night:0.6,udnie:0.4 -o mixed.jpg
  cat photo.jpg | perceptual stylize - --model starry_night -o - > stylized.jpg

A file that cannot be read is reported and skipped; the exit status is then 1.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("stylize", help="stylize photos without a server", description=DESCRIPTION)
    parser.add_argument("--model", required=True, help="a weights file, or a network's name")
    add_photos(parser)
    add_settings(parser, StyleOptions)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Stylizes every photo; returns 1 if one failed."""
    options = parse(StyleOptions, given(args, StyleOptions))
    jobs = plan(args.photos, args.output, options.format)

    from ..inference.conversion import Conversion
    from ..inference.predictor import load

    stylize = Conversion(load(args.model, args.device, args.engine), options)
    return convert(jobs, stylize, stylize.done, args.output, others_below(args.photos))
