"""Measures how much faster a network is than optimizing the picture itself until its losses are as low.

  python -m benchmarks optimization --model mine --sizes 256 --photos 4
  python -m benchmarks optimization --model mine.safetensors --style-image painting.jpg --loss-weights vgg19.safetensors

Each photo, cut to a square, is stylized by the network, before and after the same photo is optimized by L-BFGS, as with
`perceptual optimize`, with the losses of the network's training, until their sum is as low as for the network's
picture. If --iterations are not enough, `reached` is no, and the speed-up is a lower bound.

--model is a network of one style, from `perceptual train style`, and --loss-weights is the loss network's file that it
was trained with, unless that was torchvision's. On two CPU cores, an iteration takes a third of a second at 256 and
six to nine seconds at 1024: choose --sizes, --photos and --iterations accordingly.
"""

from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path

from torch import Tensor

from perceptual.inference.predictor import Predictor, load
from perceptual.settings import parse
from perceptual_training.data import find_photos
from perceptual_training.evaluation_settings import StyleEvaluationSettings
from perceptual_training.objective import StyleObjective
from perceptual_training.picture_optimization import optimize
from perceptual_training.pictures import load_square
from perceptual_training.style_evaluation import checked_objective, figures, losses_of

from .arguments import count
from .photos import PHOTOS
from .report import Row, Tables, show_progress
from .timing import Spread, alternate, now


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the benchmark's options."""
    parser.add_argument("--model", required=True, help="a weights file, or the name of a network; required")
    parser.add_argument("--style-image", type=Path, metavar="FILE", help="its painting; default: the one that ships")
    parser.add_argument("--loss-weights", type=Path, metavar="FILE", help="of its loss network; default: torchvision's")
    parser.add_argument("--content", type=Path, metavar="DIR", default=PHOTOS, help="photos (default: docs/photos)")
    parser.add_argument("--photos", type=count, default=1, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument(
        "--sizes", nargs="+", type=count, metavar="SIZE", default=[256, 512, 1024], help="px (default: 256 512 1024)"
    )
    parser.add_argument(
        "--iterations", type=count, default=500, metavar="N", help="at most, of L-BFGS (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats", type=count, default=3, metavar="N", help="runs of the network, twice (default: %(default)s)"
    )


def run(args: Namespace) -> Tables:
    """Measures every photo at every size."""
    values = {
        "model": [args.model],
        "content": args.content,
        "style-image": args.style_image,
        "loss-weights": args.loss_weights,
    }
    settings = parse(StyleEvaluationSettings, {name: value for name, value in values.items() if value is not None})
    files = find_photos(args.content, "all", "--content")
    predictor = load(args.model)
    predictor.require("style")
    objective = checked_objective(losses_of(args.model, predictor, settings), {args.model: predictor})
    rows = []
    for size in args.sizes:
        for file in files[:: max(1, len(files) // args.photos)][: args.photos]:
            show_progress(f"{size}²: {file.name}")
            photo = load_square(file, size).to(predictor.device)
            found = measure(objective, predictor, photo, args.iterations, args.repeats)
            rows.append({"image": f"{size}²", "photo": file.name, **found})
    return {"Speed-up": [summary(image, rows) for image in dict.fromkeys(row["image"] for row in rows)], "Photos": rows}


def measure(objective: StyleObjective, predictor: Predictor, photo: Tensor, iterations: int, repeats: int) -> Row:
    """The figures of one photo, 1×3×H×W in [0, 1] on the predictor's device.

    Args:
        objective: The losses, on the same device.
        predictor: The network.
        photo: The photo.
        iterations: Maximum number of iterations of the optimization.
        repeats: Runs of the network before the optimization, and after it.
    """
    device = predictor.device
    network = partial(alternate, {"network": partial(predictor, photo)}, repeats, device)
    seconds = network()["network"]
    targets = objective.targets(photo)
    goal = figures(objective, predictor(photo), targets)["total"]
    begin = now(device)
    for step in optimize(lambda image: objective(image, targets), photo, iterations):
        if step.total <= goal:
            break
    taken = now(device) - begin
    own = Spread.of([*seconds, *network()["network"]])
    return {
        "network, seconds": own,
        "loss": goal,
        "optimization, seconds": taken,
        "iterations": step.iteration,
        "reached": "yes" if step.total <= goal else "no",
        "times as fast": taken / own.median,
    }


def summary(image: str, rows: list[Row]) -> Row:
    """The spread over the photos of one size."""
    same = [row for row in rows if row["image"] == image]
    return {
        "image": image,
        "photos": len(same),
        "reached": sum(row["reached"] == "yes" for row in same),
        "network, seconds": Spread.of(row["network, seconds"].median for row in same),
        "optimization, seconds": Spread.of(row["optimization, seconds"] for row in same),
        "iterations": Spread.of(row["iterations"] for row in same),
        "times as fast": Spread.of(row["times as fast"] for row in same),
    }
