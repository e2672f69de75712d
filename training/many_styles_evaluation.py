"""Evaluates the styles of one network, or one learned on it, and compares them with networks of one style.

All are measured by the objective of the network's own training, on photos that were not used in it: the unchanged
photo, every style at each size of its painting, and networks of one style after the same painting.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from rich.console import Console
from rich.markup import escape
from torch import Tensor

from perceptual.errors import InvalidOption, TrainingError
from perceptual.files import write_atomically
from perceptual.inference.metadata import find_distinct, find_weights
from perceptual.inference.predictor import Predictor, given, load
from perceptual.inference.sheets import Tile, contact_sheet
from perceptual.settings import parse

from .artefacts import grids
from .data import find_photos, spread
from .evaluation_settings import ManyStylesEvaluationSettings, VideoEvaluationSettings
from .learning import trunk_losses
from .losses import FeatureReconstructionLoss, Features
from .machine import exact_float32
from .objective import StyleObjective, build_objective
from .paintings import Painting, find_paintings
from .pictures import load_square
from .report import Row, averages, encoded, table
from .settings import OptimizationSettings, plain
from .style_evaluation import check_loss_network, shown, thumbnail
from .styles import OWN
from .weaves import weave

Stylize = Callable[[Tensor], Tensor]
SEEN = FeatureReconstructionLoss({"relu4_2": 1.0})  # content, by a measure that does not depend on the training


@dataclass(frozen=True)
class Look:
    """A painting at one of the sizes at which it was learned, and methods that stylize photos 1×3×H×W after it.

    Attributes:
        painting: The painting.
        size: Its shorter side, in pixels.
        target: Its index among the objective's style targets.
        methods: Functions that stylize a photo, by name.
    """

    painting: Painting
    size: int
    target: int
    methods: dict[str, Stylize]


def evaluate_many_styles(settings: ManyStylesEvaluationSettings) -> Path:
    """Measures the styles of one network on photos, by the losses of its training.

    Returns:
        The report, Markdown; in its folder are the same figures as JSON, and a contact sheet for each size.

    Raises:
        WeightsError: A network is missing or for another task.
        InvalidOption: The network has no style of a given name.
        TrainingError: No photos, a painting is missing, or the loss network is not that of the training.
        InputError: A photo or a painting cannot be read.
    """
    exact_float32()
    trunk = load(find_weights(settings.model), settings.device, "eager")
    trunk.require("style")
    paintings = chosen_paintings(trunk, settings.styles, settings.style_dir)
    sizes = trunk.metadata["provenance"]["recipe"]["style_sizes"]
    objective = trained_objective(settings, trunk, paintings, sizes)
    looks = list(looks_of(settings, trunk, paintings, sizes))
    files = find_photos(settings.content, settings.split, "--content")
    files = spread(files, settings.photos)
    rows: list[Row] = []
    report = settings.output / "styles.md"
    with Console(stderr=True).status("measuring") as status:
        faults = [artefacts(look, name) for look in looks for name in look.methods]
        for size in settings.sizes:
            photos = [load_square(file, size) for file in files]
            sheet: list[list[Tile]] = []
            for look in looks:
                status.update(escape(f"{look.painting.name} at {size} px"))
                measured, pictures = compare(objective, look, photos)
                rows += [{"size": size, **row} for row in measured]
                sheet.append([(f"{look.painting.name}, {look.size} px", thumbnail(pictures.pop("photo")))])
                sheet[-1] += [(name, thumbnail(picture)) for name, picture in pictures.items()]
                write_report(settings, report, len(files), rows, faults)
            contact_sheet(sheet).save(settings.output / f"contact_sheet_{size}.png")
    return report


def chosen_paintings(trunk: Predictor, names: Sequence[str], folder: Path) -> list[Painting]:
    """The paintings of the styles to be measured: those named, or all in the folder.

    Raises:
        InvalidOption: The network has no style of a given name.
        TrainingError: A named style's painting is not in the folder, or no painting is; or one is not the file that the
            style was trained on.
        InputError: A painting cannot be read.
    """
    provenance = trunk.metadata["provenance"]
    known = {each["name"]: each for each in provenance.get("styles", [provenance] if "trunk" in provenance else [])}
    if unknown := [name for name in names if name not in known]:
        raise InvalidOption(f"styles: there is no style {unknown[0]!r} here; the styles are: {', '.join(known)}")
    there = {each.name: each for each in find_paintings(folder) if each.name in known}
    if missing := [name for name in names if name not in there]:
        raise TrainingError(f"there is no painting of {missing[0]} in {folder}; name its folder with --style-dir")
    chosen = [there[name] for name in names or there]
    if not chosen:
        raise TrainingError(f"none of the paintings is in {folder}; name their folder with --style-dir")
    for painting in chosen:
        if painting.sha256 != known[painting.name]["style_image_sha256"]:
            raise TrainingError(f"{painting.path} is not the file that the style {painting.name} was trained on")
    return chosen


def trained_objective(
    settings: ManyStylesEvaluationSettings | VideoEvaluationSettings,
    trunk: Predictor,
    paintings: Sequence[Painting],
    sizes: Sequence[int],
) -> StyleObjective:
    """The objective of the network's own training, for some of its paintings at each size."""
    recipe = trunk.metadata["provenance"].get("recipe", {})
    if "loss_weights" in recipe and not settings.loss_weights:
        raise TrainingError(f"loss-weights: {settings.model} was trained with {recipe['loss_weights']}: give its path")
    weights = given(loss_weights=settings.loss_weights, loss_weights_sha256=settings.loss_weights_sha256)
    losses = trunk_losses(trunk.metadata["provenance"], weights)
    losses.pop("style-sizes")
    targets = (painting.load(size) for painting in paintings for size in sizes)
    options = parse(OptimizationSettings, {**losses, **weights, "style-image": paintings[0].path})
    objective, origin = build_objective(options, targets, trunk.device)
    check_loss_network(settings.model, trunk, origin)
    return objective


def looks_of(
    settings: ManyStylesEvaluationSettings, trunk: Predictor, paintings: Sequence[Painting], sizes: Sequence[int]
) -> Iterator[Look]:
    """Every painting at every size, with the methods that stylize after it."""
    singles = {name: load(file, settings.device, "eager") for name, file in find_distinct(settings.against).items()}
    for number, painting in enumerate(paintings):
        same = {
            name: single
            for name, single in singles.items()
            if Path(single.metadata["provenance"].get("style_image", "")).stem == painting.name
        }
        for place, size in enumerate(sizes):
            stroke = place / max(1, len(sizes) - 1)
            own = {Path(settings.model).stem: partial(trunk, style=painting.name, stroke=stroke)}
            yield Look(painting, size, number * len(sizes) + place, {**own, **same})


@torch.no_grad()
def compare(objective: StyleObjective, look: Look, photos: Sequence[Tensor]) -> tuple[list[Row], dict[str, Tensor]]:
    """Figures of each photo 1×3×H×W by each method, and the pictures of the first."""
    which = torch.tensor([look.target], device=objective.device)
    photos = [photo.to(which.device) for photo in photos]
    untouched = [features_of(objective, photo) for photo in photos]
    layers = [objective.style_loss.layers(each, which) for each in untouched]
    factor = OWN / fmean(float(torch.stack(list(each.values())).sum()) for each in layers)
    rows: list[Row] = []
    pictures = {}
    for name, stylize in {"photo": torch.clone, **look.methods}.items():
        outputs = [stylize(photo) for photo in photos]
        pictures[name] = outputs[0]
        for before, output in zip(untouched, outputs, strict=True):
            after = features_of(objective, output)
            style, own = (float(factor * objective.style_loss.of_each(each, which)) for each in (after, before))
            losses = {
                "content": float(objective.content_loss(after, before)),
                "style": style,
                "total variation": float(objective.total_variation(output)),
            }
            facts = {"painting": look.painting.name, "painted at": look.size, "method": name, "image": ""}
            total = sum(losses.values())
            shares = {"of the photo's": style / own, "relu4_2": float(SEEN(after, before))}
            rows.append({**facts, **losses, "total": total, **shares, "weave": float(weave(output))})
    return rows, pictures


def features_of(objective: StyleObjective, image: Tensor) -> Features:
    """All features of an image 1×3×H×W in [0, 1] that are compared."""
    layers = [*objective.content_loss.weights, *objective.style_loss.weights, *SEEN.weights]
    return objective.loss_network(image.contiguous(memory_format=torch.channels_last), layers)


def artefacts(look: Look, method: str) -> Row:
    """A method's figures for grids in flat areas."""
    found = grids(look.methods[method])
    facts = {"painting": look.painting.name, "painted at": look.size, "method": method}
    return {**facts, **{f"grid, {name}": value for name, value in found.items()}}


def write_report(
    settings: ManyStylesEvaluationSettings, report: Path, photos: int, rows: Sequence[Row], faults: Sequence[Row]
) -> None:
    """Writes all figures so far, of a number of photos, as Markdown and JSON."""
    means = averages(rows, "size", "painting", "painted at", "method")
    for mean in means:
        mean.pop("image")
    content = {"settings": plain(settings), "means": means, "artefacts": faults}
    write_atomically(report.with_suffix(".json"), encoded(json.dumps(content, indent=2, ensure_ascii=False)))
    text = [
        "# Styles of one network, measured",
        "",
        f"Means over {photos} photos, cut to squares, of the weighted losses of the network's own training: "
        "of the photo itself, of the network at each size of the painting, and of networks of one style. `of the "
        "photo's`: style loss relative to that of the same photo untouched, the mean of these ratios. `relu4_2`: the "
        "distance of the photo's features there, unweighted. `weave`: how evenly fine strokes repeat; 0 to 0.03 in "
        "paintings of brush strokes.",
        "",
        *table(means, shown),
        "",
        "## Grids",
        "",
        "Energy at 1/2 and 1/4 cycles per pixel relative to that of neighbouring frequencies; 1 means no grid.",
        "",
        *table(faults, shown),
        "",
    ]
    write_atomically(report, encoded("\n".join(text)))
