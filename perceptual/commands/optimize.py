"""``perceptual optimize``: stylizes one photo by optimizing its pixels, without a network and without training."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InvalidOption
from ..settings import parse
from ..signals import stop_signals
from .arguments import add_settings, given
from .photos import STANDARD, plan

DESCRIPTION = """Gives one photo the style of a painting by optimizing the picture itself (Gatys et al. 2016).

  perceptual optimize photo.jpg --style-image painting.jpg -o stylized.png
  perceptual optimize photo.jpg --style-image painting.jpg -o stylized.png --max-size 1024 --iterations 200

This needs no training, but takes many minutes per picture on a CPU, where a trained network takes a second. The losses
are those of `perceptual train style`: use it to try a painting and loss weights before a training. Ctrl-C keeps the
picture so far.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    from perceptual_training.settings import OptimizationSettings

    parser = subparsers.add_parser(
        "optimize",
        help="stylize one photo slowly, after any painting",
        description=DESCRIPTION,
        usage="perceptual optimize PHOTO --style-image FILE -o OUT [settings]",
    )
    parser.add_argument("photo", type=Path, metavar="PHOTO", help="an image file")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="file of the result")
    add_settings(parser, OptimizationSettings)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Optimizes and writes the picture; returns 130 if a signal stopped it."""
    from perceptual_training.settings import OptimizationSettings

    settings = parse(OptimizationSettings, given(args, OptimizationSettings))
    if args.photo.is_dir():
        raise InvalidOption(f"{args.photo} is a folder; name one photo")
    if STANDARD in (args.photo, args.output):
        raise InvalidOption("- does not work here: name a photo, and a file for the result")
    (job,) = plan([args.photo], args.output, None)
    if job.target.resolve() == settings.style_image.resolve():
        raise InvalidOption(f"{job.target} would overwrite the painting; choose another --output")

    from perceptual_training.picture_optimization import Optimization

    from ..inference import images

    optimization = Optimization(settings, job.source)
    step: Any = None
    best: Any = None
    with progress(settings.iterations) as show, stop_signals() as stop:
        try:
            for step in optimization.steps():
                show(step)
                best = step if best is None or step.total < best.total else best
                if stop.is_set():
                    break
        finally:
            if best:  # the first iterations may be worse than the photo itself
                picture = optimization.picture(best)
                job.write(images.encode(picture, job.format))
    print(
        f"{job.target}, after {step.iteration} of {settings.iterations} iterations; the picture is from "
        f"iteration {best.iteration}, with a loss of {best.total:.4g}"
    )
    return 130 if step.iteration < settings.iterations else 0


@contextmanager
def progress(iterations: int) -> Iterator[Callable[[Any], None]]:
    """A function that shows a step's iteration and loss, with the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("", total=iterations)
        yield lambda step: bars.update(bar, completed=step.iteration, description=f"loss {step.total:.4g}")
