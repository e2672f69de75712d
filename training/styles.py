"""Trains many styles in one network: a trunk, and for each style the scale and shift of every norm.

Conditional instance normalization (Dumoulin et al. 2017, https://arxiv.org/abs/1610.07629), with the losses of Johnson
et al. 2016. Every crop of a batch is assigned a random style, at one of the sizes at which each painting is learned.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from perceptual.errors import InvalidOption
from perceptual.inference.metadata import find_weights
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.weights import save_network

from . import parallel
from .data import RandomCrops, find_photos, load, resized_crops
from .distillation import DistillationLoss
from .grain import randomly_grained
from .grids import GridProminenceLoss
from .loop import train
from .objective import StyleObjective, build_objective
from .paintings import Painting, digest, find_paintings
from .peaks import PeakLoss
from .settings import LearningSettings, StylesSettings
from .sheets import sheet
from .steadiness import NOISE, SteadinessLoss
from .style import POOLED, STRIDE
from .task import FRAME_SIZE, build_network, prepare, provenance, randomly_cropped, run_finished, sample_photos

OWN = 1e6  # style loss of unchanged photos, for every painting, with a style weight of 1
MEASURED = 32  # crops with which this loss is measured
PAIRS = 4  # paintings in a row of the sample sheet, each beside a photo in its style at each size


def train_styles(settings: StylesSettings, *, resume: bool = False) -> Path | None:
    """Trains a network of all styles of a folder of paintings.

    Returns:
        The weights file, or None if a signal or ``settings.minutes`` stopped the training early.

    Raises:
        TrainingError: As in :func:`.loop.train`, or the loss network cannot be loaded.
        InputError: A painting cannot be used, or settings contradict each other.
        WeightsError: The initial weights cannot be read.
    """
    if settings.teacher and settings.style_factors:
        raise InvalidOption("style-factors: with --teacher there is no style loss; leave one of the two out")
    run, device = prepare(settings, settings.name or "styles", resume=resume)
    if settings.teacher:  # a name means the network that was there before this training wrote its own
        settings = replace(settings, teacher=find_weights(settings.teacher, run.model))
    task = ManyStyles(settings, device)
    return run.model if train(task, settings, run, device, resume=resume) else None


class ManyStyles:
    """Network and losses of a training of many styles, on a device.

    A painting for which photos have a high style loss would dominate the others. So each painting's style loss is
    divided by the loss of unchanged photos.

    Args:
        settings: The settings.
        device: The device.
    """

    settings: StylesSettings | LearningSettings

    def __init__(self, settings: StylesSettings | LearningSettings, device: torch.device) -> None:
        self.settings = settings
        if len(settings.style_sizes) > 2 or sorted(settings.style_sizes) != list(settings.style_sizes):
            raise InvalidOption("style-sizes: expected one size, or two of which the second is larger")
        self.paintings = self.find_paintings()
        self.samples = sample_photos(settings).to(device)
        self.crops = resized_crops(settings.image_size)
        sizes = settings.style_sizes
        targets = (painting.load(size) for painting in self.paintings for size in sizes)
        self.objective, self.origin = build_objective(settings, targets, device)
        self.factors = self.balance(device)
        self.draws = torch.tensor(self.each_row(self.style_draws()), device=device)
        self.memory_format = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        network = self.build(device)
        self.network = network.to(device).to(memory_format=self.memory_format)
        self.peaks = PeakLoss(self.network, settings.peak_weight)
        self.steadiness = SteadinessLoss(settings.steadiness_weight, STRIDE, NOISE)
        self.grids = GridProminenceLoss(settings.grid_weight, self.network.grain)
        self.distillation = self.load_teacher(device)
        self.reached: dict[str, float] = {}

    def find_paintings(self) -> list[Painting]:
        """The paintings to learn. Raises as :func:`.paintings.find_paintings`."""
        assert isinstance(self.settings, StylesSettings)
        return find_paintings(self.settings.style_dir)

    def build(self, device: torch.device) -> StyleNetwork:
        """The network to train, with a style for every painting at each size. Raises as :func:`.task.build_network`."""
        settings = self.settings
        assert isinstance(settings, StylesSettings)
        network = build_network(
            StyleNetwork,
            settings,
            [painting.name for painting in self.paintings],
            styles=len(self.paintings),
            sizes=len(settings.style_sizes),
            in_channels=settings.in_channels,
            grain=settings.grain,
        )
        if settings.trainable == "styles":
            if not settings.initial_weights:
                raise InvalidOption("trainable: styles alone need --initial-weights")
            network.requires_grad_(False).styles.requires_grad_(True)
        return network

    def load_teacher(self, device: torch.device) -> DistillationLoss | None:
        """The loss of another network's pictures, if there is a teacher. Raises as :class:`.DistillationLoss`."""
        assert isinstance(self.settings, StylesSettings)
        if not self.settings.teacher:
            return None
        names = [painting.name for painting in self.paintings]
        return DistillationLoss(self.settings.teacher, names, len(self.settings.style_sizes)).to(device)

    def style_factors(self) -> dict[str, float]:
        """The user's factors of the style loss for single paintings."""
        assert isinstance(self.settings, StylesSettings)
        return numbers_by_name("style-factors", self.settings.style_factors, self.paintings)

    def style_draws(self) -> dict[str, float]:
        """How often single paintings are drawn, relative to the others."""
        assert isinstance(self.settings, StylesSettings)
        return numbers_by_name("style-draws", self.settings.style_draws, self.paintings)

    def each_row(self, numbers: Mapping[str, float]) -> list[float]:
        """For each painting, at each size, its number, or 1."""
        return [numbers.get(painting.name, 1.0) for painting in self.paintings for _ in self.settings.style_sizes]

    def balance(self, device: torch.device) -> Tensor:
        """Factor of the style loss for each painting, at each size: the same in all processes."""
        settings = self.settings
        crops = RandomCrops(find_photos(settings.content_dir, settings.split), self.crops, settings.seed)
        own = own_losses(self.objective, load(crops, [range(i, i + 4) for i in range(0, MEASURED, 4)], 0, device))
        factors = OWN / own
        return factors * factors.new_tensor(self.each_row(self.style_factors()))

    def losses(self, photos: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Weighted losses by name for photos N×3×H×W in [0, 1], each in a style at random, and the stylized photos."""
        which = self.draw(len(photos))
        run = partial(self.run, styles=self.network.styles.flatten(0, 1)[which])
        grained = randomly_grained(photos, self.network.grain)
        stylized = run(grained)
        if self.distillation:
            losses = {"pixels": self.distillation(grained, which, stylized)}
        else:
            losses = self.perceptual_losses(photos, which, stylized)
        losses |= self.peaks()
        with self.peaks.paused():
            losses |= self.steadiness(run, grained, stylized)
            losses |= self.grids(run, photos, stylized)
        return losses, stylized

    def perceptual_losses(self, photos: Tensor, which: Tensor, stylized: Tensor) -> dict[str, Tensor]:
        """The losses of the paper for stylized photos, N×3×H×W in [0, 1], each in the style of a row."""
        seen, content = randomly_cropped(POOLED, stylized, photos)
        objective = self.objective
        targets, features = objective.targets(content), objective.features(seen)
        return {
            "content": objective.content_loss(features, targets),
            "style": (objective.style_loss.of_each(features, which) * self.factors[which]).mean(),
            "total_variation": objective.total_variation(seen),
        }

    def draw(self, count: int) -> Tensor:
        """Rows of random styles for that many photos, each a painting at one of its sizes."""
        return parallel.part(torch.multinomial(self.draws, count * parallel.world_size(), replacement=True))

    def run(self, photos: Tensor, styles: Tensor) -> Tensor:
        """Stylizes photos N×3×H×W in [0, 1], each in its style, N×P."""
        stylized: Tensor = self.network(photos.contiguous(memory_format=self.memory_format), styles)
        return stylized

    def sheet(self) -> Image.Image:
        """Every painting beside a sample photo in its style, at each size."""
        cells, self.reached = [], {}
        for number, painting in enumerate(self.paintings):
            photo = self.samples[number % len(self.samples)][None]
            outputs = self.stylized(photo, number)
            cells += [painting.square(FRAME_SIZE), *outputs]
            self.reached[f"style/{painting.name}"] = float(self.remaining(photo, outputs, number))
        width = PAIRS * (1 + len(self.settings.style_sizes))
        cells += [torch.ones_like(cells[0])] * (-len(cells) % width)
        rows = iter(cells)
        return sheet([list(islice(rows, width)) for _ in range(len(cells) // width)])

    def stylized(self, photo: Tensor, number: int) -> Tensor:
        """A photo 1×3×H×W in a style, at each of its sizes."""
        return run_finished(self.network, photo, *self.network.styles[number].detach().split(1))

    @torch.no_grad()
    def remaining(self, photo: Tensor, outputs: Tensor, number: int) -> Tensor:
        """Style loss of a stylized photo relative to the photo's own, averaged over sizes."""
        sizes = len(outputs)
        which = torch.arange(number * sizes, (number + 1) * sizes, device=outputs.device)
        of_each = self.objective.style_loss.of_each
        own = of_each(self.objective.features(photo.expand_as(outputs)), which)
        return (of_each(self.objective.features(outputs), which) / own).mean()

    def figures(self) -> dict[str, float]:
        """Style loss on the sheet relative to the unchanged photo's, for each style."""
        return self.reached

    def frame(self) -> Image.Image:
        """The first sample in the first style."""
        return to_pil_image(self.stylized(self.samples[:1], 0)[0].cpu())

    def save(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Writes the network, with facts beside its provenance."""
        save_network(path, self.network, {**self.provenance(), **facts})

    def provenance(self) -> dict[str, Any]:
        """Provenance of the weights, for their metadata."""
        return provenance(
            self.settings,
            name=self.settings.name or "styles",
            description=f"Style transfer after {len(self.paintings)} paintings",
            styles=[painting.provenance() for painting in self.paintings],
            style_image_sha256=digest(self.paintings),
            loss_network=self.origin,
            **({"teacher": self.distillation.digest} if self.distillation else {}),
        )


@torch.no_grad()
def own_losses(objective: StyleObjective, photos: Any) -> Tensor:
    """Mean style loss of unchanged photos for each of K paintings, all layer weights 1: K numbers.

    Args:
        objective: Of the paintings.
        photos: Batches N×3×H×W in [0, 1], each with a list of unusable files.
    """
    losses = []
    for batch, _ in photos:
        features = objective.features(batch)
        for place in range(len(batch)):
            one = {layer: values[place : place + 1] for layer, values in features.items()}
            by_layer = objective.style_loss.layers(one)  # broadcast over all paintings
            losses.append(torch.stack(list(by_layer.values())).sum(dim=0))
    return torch.stack(losses).mean(dim=0)


def numbers_by_name(option: str, pairs: tuple[str, ...], paintings: list[Painting]) -> dict[str, float]:
    """Numbers given as ``NAME=NUMBER``. Raises InvalidOption for any other text, and for unknown paintings."""
    numbers = {}
    names = [painting.name for painting in paintings]
    for pair in pairs:
        name, _, text = pair.partition("=")
        if name not in names:
            raise InvalidOption(f"{option}: there is no painting {name!r}; the paintings are: {', '.join(names)}")
        try:
            numbers[name] = float(text)
        except ValueError:
            numbers[name] = math.nan
        if not 0 < numbers[name] < math.inf:
            raise InvalidOption(f"{option}: expected NAME=NUMBER, a number above 0, got {pair!r}")
    return numbers
