"""``perceptual train``: trains networks."""

from argparse import Namespace
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

from ..settings import parse, settings_of
from . import train_all
from .arguments import add_setting, add_settings, given

T = TypeVar("T")

DESCRIPTION = """Trains networks on a folder of photos.

  perceptual train style --style-image painting.jpg --content-dir photos/
  perceptual train styles --style-dir paintings/ --content-dir photos/
  perceptual train super-resolution --content-dir photos/ --upscale-factor 4
  perceptual train TASK --help

`perceptual learn` learns a painting in minutes, on a network that ships, and serves it.
"""

STYLE = """Trains a network that stylizes photos after one painting.

  perceptual train style --style-image painting.jpg --content-dir photos/
  perceptual train style --recipe starry_night --content-dir photos/ --name mine
  perceptual train style --trunk styles --style-image painting.jpg --content-dir photos/
  perceptual train style ... --resume

With --trunk the painting is learned in minutes, on a network of many styles, and the result is a style file. By
default, the losses are then those of the trunk, without those of steadiness, peaks and grids, and iterations, learning
rate, batch size and crop size are 150, 2e-2, 2 and 320. The trunk sets --style-size and all options of the network;
--content-image is not for --trunk.

A few hundred varied photos are enough; the paper used 80,000. The folder of the run (--sample-path) gets a checkpoint
to resume from, the current network, sample sheets, a log, and events for TensorBoard.

If the style is too weak, double --style-weights; if the photo can no longer be recognized, halve them. If strokes are
too small, raise --style-size; if too large, lower it. If flat areas show a pattern, try --grain 0.5 and --grid-weight
2e5. If dark areas become black, set --peak-weight 2e4.
"""

STYLES = """Trains one network that stylizes photos after any painting of a folder.

  perceptual train styles --style-dir paintings/ --content-dir photos/
  perceptual train styles --recipe styles --style-dir paintings/ --content-dir photos/
  perceptual train styles ... --resume

A painting's file name is its style's name. The folder may hold a paintings.toml with a table for each:

  [starry_night]
  title = "The Starry Night"
  artist = "Vincent van Gogh"

Every painting is learned at two sizes, for fine and coarse strokes, or at one (--style-sizes). If a style is too weak,
raise its weight with --style-factors NAME=2; if the photo can no longer be recognized, lower it.
"""

SUPER_RESOLUTION = """Trains a network to enlarge photos 2, 4 or 8 times.

  perceptual train super-resolution --content-dir photos/ --upscale-factor 4
  perceptual train super-resolution --recipe super_resolution_x4_pixel --content-dir photos/ --name mine_pixel
  perceptual train super-resolution --recipe super_resolution_x4 --content-dir photos/ \\
      --initial-weights mine_pixel --name mine
  perceptual train super-resolution ... --resume

The targets are crops of the photos (--image-size), the inputs these crops reduced by --degradation. --loss pixel gives
the highest PSNR and needs no loss network; --loss feature, the paper's, gives sharper pictures. With --blend yes a
network of features keeps the one of pixels that it began with, and each request chooses between them by its fidelity.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    from perceptual_training.settings import LearningSettings, StyleSettings, StylesSettings, SuperResolutionSettings

    tasks = subparsers.add_parser("train", help="train a network", description=DESCRIPTION).add_subparsers(
        title="tasks", metavar="TASK", required=True
    )
    style = add_task(tasks, "style", "style transfer: one network for one painting", STYLE, StyleSettings)
    add_setting(style, next(each for each in settings_of(LearningSettings) if each.name == "trunk"))
    style.set_defaults(run=train_style)
    styles = add_task(tasks, "styles", "style transfer: one network for many paintings", STYLES, StylesSettings)
    styles.set_defaults(run=train_styles)
    summary = "super-resolution: one network for one factor"
    super_resolution = add_task(tasks, "super-resolution", summary, SUPER_RESOLUTION, SuperResolutionSettings)
    super_resolution.set_defaults(run=train_super_resolution)
    train_all.add_to(tasks)


def add_task(tasks: Any, name: str, summary: str, description: str, settings: type) -> Any:
    """Adds the command for one task, with all its settings."""
    usage = f"perceptual train {name} [--recipe RECIPE] [--resume] [settings]"
    parser = tasks.add_parser(name, help=summary, description=description, usage=usage)
    parser.add_argument(
        "--recipe",
        type=Path,
        metavar="RECIPE",
        help="TOML file with any of the settings below, or the name of one that ships",
    )
    parser.add_argument("--resume", action="store_true", help="continue from the run's checkpoint")
    add_settings(parser, settings)
    return parser


def train_style(args: Namespace) -> int:
    """Trains a style network with the settings of the recipe, overridden by the command line."""
    from perceptual_training.settings import StyleSettings
    from perceptual_training.style import train_style

    values = chosen(args, StyleSettings)
    if hasattr(args, "trunk"):
        values["trunk"] = args.trunk
    if "trunk" in values:
        from perceptual_training.learning import learn_style, learning_settings

        return finish(learn_style(learning_settings(values), resume=args.resume), "stylize", "stylized")

    return finish(train_style(parse(StyleSettings, values), resume=args.resume), "stylize", "stylized")


def train_styles(args: Namespace) -> int:
    """Trains a network of many styles."""
    from perceptual_training.settings import StylesSettings
    from perceptual_training.styles import train_styles

    return finish(train_styles(merged(args, StylesSettings), resume=args.resume), "stylize", "stylized")


def train_super_resolution(args: Namespace) -> int:
    """Trains a super-resolution network, with settings as for :func:`train_style`."""
    from perceptual_training.settings import SuperResolutionSettings
    from perceptual_training.super_resolution import train_super_resolution

    settings = merged(args, SuperResolutionSettings)
    return finish(train_super_resolution(settings, resume=args.resume), "upscale", "large")


def merged(args: Namespace, settings: type[T]) -> T:
    """The settings of the recipe and the command line."""
    return parse(settings, chosen(args, settings))


def chosen(args: Namespace, settings: type) -> dict[str, Any]:
    """The recipe's values, overridden by the command line; also sets this process's scratch folder."""
    from perceptual_training.locks import use_scratch_folder
    from perceptual_training.settings import read_recipe

    use_scratch_folder()
    recipe = read_recipe(args.recipe) if args.recipe else {}
    return {**recipe, **given(args, settings)}


def finish(weights: Path | None, command: str, result: str) -> int:
    """Prints how to use the weights. Returns the exit status: 130 if a signal or --minutes ended the training early."""
    from perceptual_training import parallel

    from ..inference.metadata import styles_in

    first = parallel.rank() == 0
    parallel.leave()
    if weights is None:
        return 130
    if first:
        styles = styles_in(weights)
        style = f" --style {styles[0]['name']}" if len(styles) > 1 else ""
        model = quote(str(weights))
        print(f"{weights} is trained. Try it: perceptual {command} PHOTO --model {model}{style} -o {result}.jpg")
    return 0
