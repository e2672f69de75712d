"""``perceptual train all``: trains every recipe of a folder whose network is missing."""

import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PerceptualError
from ..settings import settings_of
from .arguments import add_settings, given, report

if TYPE_CHECKING:
    from perceptual_training.all_recipes import Recipe

DESCRIPTION = """Trains every recipe of a folder that names a painting or an upscaling factor and has no finished
weights yet, one after the other.

  perceptual train all --content-dir photos/
  perceptual train all --content-dir photos/ --recipes mine/ --minutes 240

If it was interrupted or ran out of time, the same command continues where it stopped. A recipe that fails is reported,
and the next one begins. Exit status: 0 if all networks are trained, except those whose painting is missing; 1 if some
failed; 130 if not finished.

The settings below apply to every recipe, but for --minutes, the time for all of them together. Those not given are as
in the recipe, or else as in `perceptual train style` or `perceptual train super-resolution`.
"""


def add_to(tasks: Any) -> None:
    """Adds the command to the tasks of ``perceptual train``."""
    from perceptual_training.settings import TrainingSettings

    summary = "every recipe of a folder whose network is missing"
    usage = "perceptual train all --content-dir PHOTOS [--recipes DIR] [--models DIR] [--runs DIR] [settings]"
    parser = tasks.add_parser("all", help=summary, description=DESCRIPTION, usage=usage)
    parser.add_argument("--recipes", type=Path, metavar="DIR", help="folder of recipes; default: those that ship")
    parser.add_argument("--models", type=Path, metavar="DIR", help="folder for weights; default: networks")
    parser.add_argument("--runs", type=Path, metavar="DIR", default=Path("runs"), help="folder for runs; default: runs")
    names = {each.name for each in settings_of(TrainingSettings)}
    add_settings(parser, TrainingSettings, without=("name", "model_path", "sample_path"), without_default=names)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Trains what is missing; returns the exit status."""
    from perceptual_training.all_recipes import RECIPES, find_recipes
    from perceptual_training.locks import use_scratch_folder
    from perceptual_training.settings import TrainingSettings

    from ..inference.metadata import OWN

    use_scratch_folder()
    values = given(args, TrainingSettings)
    watch = Watch(values.pop("minutes", None))
    failed = False
    for recipe in find_recipes(args.recipes or RECIPES, args.models or OWN, args.runs, values):
        try:
            if not train(recipe, watch):
                return 130
        except PerceptualError as error:
            report(f"perceptual: {recipe.name}: {error}")
            failed = True
    return int(failed)


class Watch:
    """The time left for all recipes together, in minutes; None means no limit."""

    def __init__(self, minutes: float | None) -> None:
        self.minutes = minutes
        self.started = time.monotonic()
        self.running = False  # the first training runs even if no time is left

    def left(self) -> float | None:
        """Minutes left, at least 0."""
        return None if self.minutes is None else max(0.0, self.minutes - (time.monotonic() - self.started) / 60)


def train(recipe: "Recipe", watch: Watch) -> bool:
    """Trains one recipe if its network is missing, and prints the outcome. Returns False if it is not finished."""
    if painting := recipe.missing_painting:
        print(f"{recipe.name}: skipped, as {painting} is missing; the recipe says where to get it")
        return True
    if recipe.is_finished():
        print(f"{recipe.name}: already trained")
        return True
    if watch.running and watch.left() == 0:
        print(f"{recipe.name}: no time left; call again to continue")
        return False
    print(f"{recipe.name}: training", flush=True)
    watch.running = True
    finished = recipe.train(watch.left()) is not None
    if not finished:
        print(f"{recipe.name}: not finished; call again to continue")
    return finished
