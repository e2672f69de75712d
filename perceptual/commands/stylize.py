"""``perceptual stylize``: photos through a network, without a server."""

from argparse import Namespace
from typing import Any

from ..options import StyleOptions
from ..settings import parse
from .arguments import add_settings, given
from .photos import add_photos, convert, others_below, plan

DESCRIPTION = """Stylizes photos without a server.

  perceptual stylize photo.jpg --model starry_night -o stylized.jpg
  perceptual stylize holiday/ --model models/mine.safetensors -o stylized/ --strength 0.7

A file that cannot be read is reported and skipped; the exit status is then 1.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("stylize", help="stylize photos without a server", description=DESCRIPTION)
    parser.add_argument("--model", required=True, help="a weights file, or the name of a network that ships")
    add_photos(parser)
    add_settings(parser, StyleOptions)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Stylizes every photo; returns 1 if one failed."""
    options = parse(StyleOptions, given(args, StyleOptions))
    jobs = plan(args.photos, args.output, options.format)

    from ..inference import images
    from ..inference.predictor import load

    predictor = load(args.model, args.device, args.engine)

    def stylize(photo: bytes, format: str) -> bytes:
        decoded = images.decode(photo, format=format, max_size=options.max_size)
        (picture,) = predictor.stylize_pictures([decoded], [options])
        return images.encode(picture, format, options.quality)

    return convert(jobs, stylize, "stylized", args.output, others_below(args.photos))
