"""``perceptual train``: teaches a network a task."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from ..settings import parse
from .arguments import add_settings, given

STYLE = """Trains a network to paint photos in the style of one painting.

  perceptual train style --style-image painting.jpg --content-dir photos/
  perceptual train style --recipe training/recipes/starry_night.toml --content-dir photos/
  perceptual train style ... --resume

Any folder of a few hundred varied photos will do; the paper used 80,000. The folder of the run (--sample-path) gets
a checkpoint to resume from, the network as it is so far, sample sheets, a log, and events for TensorBoard.

If the style is too weak, double --style-weights; if it swallows the photo, halve them. If strokes are too small,
lower --style-size; if too large, raise it. If flat areas show a pattern, raise --reg-weight tenfold.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    from perceptual_training.settings import StyleSettings

    tasks = subparsers.add_parser("train", help="train a network").add_subparsers(
        title="tasks", metavar="TASK", required=True
    )
    style = tasks.add_parser(
        "style",
        help="style transfer: one network for one painting",
        description=STYLE,
        usage="perceptual train style [--recipe FILE] [--resume] [settings]",
    )
    style.add_argument("--recipe", type=Path, metavar="FILE", help="TOML file with any of the settings below")
    style.add_argument("--resume", action="store_true", help="go on from the run's checkpoint")
    add_settings(style, StyleSettings)
    style.set_defaults(run=train_style)


def train_style(args: Namespace) -> int:
    """Trains a style network as told by the recipe and the command line, which wins."""
    from perceptual_training.settings import StyleSettings, read_recipe
    from perceptual_training.style import train_style

    recipe = read_recipe(args.recipe) if args.recipe else {}
    weights = train_style(parse(StyleSettings, {**recipe, **given(args, StyleSettings)}), resume=args.resume)
    if weights is None:
        return 130
    print(f"{weights} is trained. Try it: perceptual stylize PHOTO --model {weights} -o stylized.jpg")
    return 0
