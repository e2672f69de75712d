"""Compares style networks with optimization of the picture itself.

The losses of a network's own training are measured on photos that were not used in training: for the network's output,
for the unchanged photo, and for pictures optimized by the same losses, from the photo or from noise. The result is the
number of iterations after which the optimization reaches the network's total loss; in figure 5 of Johnson et al. 2016
it is 50 to 100. Johnson's own program (https://github.com/jcjohnson/neural-style) starts from noise, which needs many
more iterations than the photo.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.markup import escape
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from perceptual.errors import InvalidOption, TrainingError
from perceptual.files import write_atomically
from perceptual.inference.metadata import find_distinct
from perceptual.inference.predictor import Predictor, load, pick_device
from perceptual.inference.sheets import Tile, contact_sheet
from perceptual.settings import parse

from .artefacts import SIDE, SURROUNDINGS, borders, grids
from .data import find_photos, spread
from .evaluation_settings import StyleEvaluationSettings, VideoEvaluationSettings
from .loss_network import identity
from .losses import Features
from .machine import exact_float32
from .objective import StyleObjective, build_objective
from .picture_optimization import initial_picture, optimize
from .pictures import load_image, load_square
from .report import Row, averages, encoded, table
from .settings import OptimizationSettings, plain

STYLES = Path(__file__).parent / "styles"
SHOWN = 256  # pixels; side of a picture on a contact sheet


def evaluate_style(settings: StyleEvaluationSettings) -> Path:
    """Measures style networks on photos, each with the losses of its own training.

    Returns:
        The report as Markdown, rewritten after every photo. In its folder are the same figures as JSON, and a contact
        sheet for each painting and size.

    Raises:
        WeightsError: A network is missing or for another task.
        InvalidOption: Networks of one painting were trained with different losses.
        TrainingError: No photos, no loss network, or the loss network or painting is not that of the training.
        InputError: A photo or the style image cannot be read.
    """
    exact_float32()
    predictors = {name: load(file, settings.device, "eager") for name, file in find_distinct(settings.model).items()}
    for predictor in predictors.values():
        predictor.require("style")
    files = find_photos(settings.content, settings.split, "--content")
    files = spread(files, settings.photos)
    groups: dict[OptimizationSettings, dict[str, Predictor]] = {}  # networks of the same losses share optimizations
    for name, predictor in predictors.items():
        groups.setdefault(losses_of(name, predictor, settings), {})[name] = predictor
    refuse_other_losses(groups)
    objectives = {losses: checked_objective(losses, networks) for losses, networks in groups.items()}
    faults = [{"network": name, **artefacts(each, files)} for name, each in predictors.items()]
    rows: list[Row] = []
    console = Console(stderr=True)
    report = settings.output / "style.md"
    with console.status("measuring") as status:
        for losses, networks in groups.items():
            for size in settings.sizes:
                sheet: list[list[Tile]] = []
                for file in files:
                    status.update(escape(f"{', '.join(networks)} at {size} px: {file.name}"))
                    photo = load_square(file, size)
                    facts = {"painting": losses.style_image.stem, "size": size, "image": file.name}
                    measured, pictures = compare(
                        objectives[losses], photo, networks, settings.iterations, settings.start
                    )
                    rows += [{**facts, **row} for row in measured]
                    sheet.append([("" if sheet else name, thumbnail(each)) for name, each in pictures.items()])
                    write_report(settings, report, rows, faults)
                    contact_sheet(sheet).save(settings.output / f"contact_sheet_{losses.style_image.stem}_{size}.png")
    return report


def losses_of(
    name: str, predictor: Predictor, settings: StyleEvaluationSettings | VideoEvaluationSettings
) -> OptimizationSettings:
    """The losses that a network was trained with, from its provenance; the painting is checked by its digest.

    Raises:
        TrainingError: The provenance is incomplete, or that of many styles or of a learned one; or the painting or the
            loss network's file is not the right one.
    """
    provenance = predictor.metadata["provenance"]
    recipe = provenance.get("recipe", {})
    if "style_sizes" in recipe:
        raise TrainingError(
            f"{name} was trained by the losses of many styles, which give every painting the same weight: use "
            f"perceptual evaluate styles, with the painting under its style's name in --style-dir"
        )
    if "style_image" not in provenance or not recipe:
        raise TrainingError(f"{name}: its metadata has no recipe, so its losses are unknown")
    painting = settings.style_image or STYLES / provenance["style_image"]
    if not painting.is_file():
        raise TrainingError(f"there is no {painting}; name the painting of {name} with --style-image")
    if hashlib.sha256(painting.read_bytes()).hexdigest() != provenance.get("style_image_sha256"):
        raise TrainingError(f"{painting} is not the painting that {name} was trained on; name that with --style-image")
    if "SHA-256" in provenance["loss_network"] and not settings.loss_weights:
        raise TrainingError(f"{name} was trained with {provenance['loss_network']}; name that file with --loss-weights")
    names = (
        *("style_size", "loss_network", "content_layers", "content_weight", "style_layers", "style_weights"),
        "reg_weight",
    )
    values = {
        "style_image": painting,
        "loss_weights": settings.loss_weights,
        "loss_weights_sha256": settings.loss_weights_sha256,
        "device": settings.device,
        **{name: recipe[name] for name in names if name in recipe},
    }
    return parse(
        OptimizationSettings, {name.replace("_", "-"): value for name, value in values.items() if value is not None}
    )


def refuse_other_losses(groups: Mapping[OptimizationSettings, Mapping[str, Predictor]]) -> None:
    """Raises InvalidOption if networks of one painting had different losses in training."""
    first: dict[str, str] = {}  # by painting, a network of it
    for losses, networks in groups.items():
        name = next(iter(networks))
        other = first.setdefault(losses.style_image.stem, name)
        if other != name:
            raise InvalidOption(
                f"model: {other} and {name} were trained with different losses: evaluate them separately"
            )


def checked_objective(losses: OptimizationSettings, networks: Mapping[str, Predictor]) -> StyleObjective:
    """The objective that networks were trained with. Raises TrainingError if its loss network had other weights."""
    painting = load_image(losses.style_image, losses.style_size)
    objective, origin = build_objective(losses, [painting], pick_device(losses.device))
    for name, predictor in networks.items():
        check_loss_network(name, predictor, origin)
    return objective


def check_loss_network(name: str, predictor: Predictor, origin: str) -> None:
    """Raises TrainingError if a network was trained with another loss network."""
    trained = predictor.metadata["provenance"]["loss_network"]
    if identity(trained) != identity(origin):
        raise TrainingError(f"{name} was trained with {trained}, not {origin}; name that with --loss-weights")


def artefacts(predictor: Predictor, files: Sequence[Path]) -> Row:
    """A network's figures for grids and borders."""
    photos = [load_square(file, SIDE + 2 * SURROUNDINGS) for file in files]
    found = {f"grid, {name}": value for name, value in grids(predictor).items()}
    return {**found, **borders(partial(predictor, grain=0.0), photos)}


def compare(
    objective: StyleObjective, photo: Tensor, networks: Mapping[str, Predictor], iterations: Sequence[int], start: str
) -> tuple[list[Row], dict[str, Tensor]]:
    """Figures and pictures, 1×3×H×W, of a photo in [0, 1]: itself, every network's output, and optimizations of it."""
    photo = photo.to(objective.device)
    targets = objective.targets(photo)
    totals: list[float] = []
    pictures = {"photo": photo, **{name: network(photo) for name, network in networks.items()}}
    for step in optimize(lambda image: objective(image, targets), initial_picture(start, photo), max(iterations)):
        totals.append(step.total)
        if step.iteration in iterations:
            pictures[f"optimization, {step.iteration}"] = step.image
    rows: list[Row] = [{"method": name, **figures(objective, image, targets)} for name, image in pictures.items()]
    for row in rows:
        if row["method"] in networks:
            row["worth"] = next((done for done, total in enumerate(totals) if total <= row["total"]), None)
    return rows, pictures


@torch.no_grad()
def figures(objective: StyleObjective, image: Tensor, targets: Features) -> dict[str, float]:
    """Weighted losses of an image 1×3×H×W in [0, 1], and the style loss of each layer."""
    features = objective.features(image)
    weights = objective.style_loss.weights
    by_layer = {
        layer: weights[layer] * loss.mean().item() for layer, loss in objective.style_loss.layers(features).items()
    }
    losses = {
        "content": objective.content_loss(features, targets).item(),
        "style": sum(by_layer.values()),
        "total variation": objective.total_variation(image).item(),
    }
    return {**losses, "total": sum(losses.values()), **{f"style {layer}": loss for layer, loss in by_layer.items()}}


def thumbnail(image: Tensor) -> Image.Image:
    """An image 1×3×H×W in [0, 1], reduced for a contact sheet."""
    picture = to_pil_image(image[0].cpu())
    picture.thumbnail((SHOWN, SHOWN), Image.Resampling.LANCZOS)
    return picture


def write_report(settings: StyleEvaluationSettings, report: Path, rows: Sequence[Row], faults: Sequence[Row]) -> None:
    """Writes all figures so far, as Markdown and JSON."""
    means = averages(rows, "painting", "size", "method")
    for mean in means:
        mean.pop("worth", None)
    content = {"settings": plain(settings), "means": means, "artefacts": faults, "images": rows}
    text = json.dumps(content, indent=2, ensure_ascii=False)
    write_atomically(report.with_suffix(".json"), encoded(text))
    write_atomically(report, encoded(markdown(means, rows, faults, settings)))


def markdown(
    means: Sequence[Row], rows: Sequence[Row], faults: Sequence[Row], settings: StyleEvaluationSettings
) -> str:
    """The report: means, style by layer, artefacts, and every image."""
    photos = {(row["painting"], row["size"]): row["style"] for row in means if row["method"] == "photo"}
    summary = [
        {
            **{name: row[name] for name in ("painting", "size", "method", "content", "style")},
            "of the photo's": row["style"] / photos[row["painting"], row["size"]],
            **{name: row[name] for name in ("total variation", "total")},
            "worth iterations": worth(row, rows, max(settings.iterations)),
        }
        for row in means
    ]
    layers = dict.fromkeys(name for row in means for name in row if is_layer(name))
    by_layer = [{name: row.get(name, "") for name in ("painting", "size", "method", *layers)} for row in means]
    every = [{name: value for name, value in row.items() if name != "worth" and not is_layer(name)} for row in rows]
    count = len({row["image"] for row in rows})
    return "\n".join(
        [
            "# Style, measured",
            "",
            f"Means over {count} photos, cut to squares, of the weighted losses of each network's own training: of its "
            f"output, of the photo itself, and of pictures optimized by L-BFGS from {settings.start}. `worth "
            "iterations`: the iterations after which the optimized picture's total is as low as the network's: "
            "the median over photos, and the range. `of the photo's`: the mean style loss relative to the mean of the "
            "untouched photos.",
            "",
            *table(summary, shown),
            "",
            "## Style loss by layer",
            "",
            *table(by_layer, shown),
            "",
            "## Artefacts",
            "",
            "Grids: energy at 1/2 and 1/4 cycles per pixel relative to that of neighbouring frequencies, of the output "
            "for grey with faint noise and for gradients (geometric mean); 1 means no grid. Borders: how much 64 px of "
            "extra surroundings change, relative to the result's contrast, in the outer 16 px and in the centre.",
            "",
            *table(faults, shown),
            "",
            "## Every image",
            "",
            *table(every, shown),
            "",
        ]
    )


def is_layer(name: str) -> bool:
    """Whether a column is the style loss of one layer."""
    return name.startswith("style ")


def worth(mean: Row, rows: Sequence[Row], most: int) -> str:
    """Number of iterations that match a network: median over the photos, and range; empty for other methods."""
    same = [row for row in rows if all(row[name] == mean[name] for name in ("painting", "size", "method"))]
    if "worth" not in same[0]:
        return ""
    counts = [math.inf if row["worth"] is None else row["worth"] for row in same]
    middle, least, highest = (
        f"{count:.0f}" if count <= most else f"> {most}" for count in (median(counts), min(counts), max(counts))
    )
    return f"{middle} ({least} to {highest})"


def shown(name: str, value: Any) -> str:
    """A figure as text, rounded to its significant digits."""
    if not isinstance(value, float):
        return f"{value}²" if name == "size" else str(value)
    if name == "of the photo's" or name in ("border", "centre"):
        return f"{value:.1%}"
    return f"{value:.3g}" if value < 1000 else f"{value:.2e}".replace("e+0", "e")
