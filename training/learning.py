"""Learns a painting on a trained trunk: only the scales and shifts of its norms, in minutes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from perceptual.errors import InvalidOption
from perceptual.inference.grain import with_grain
from perceptual.inference.metadata import find_weights, read_metadata, shipped_weights, styles_in
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.styles import read_trunk, save_style
from perceptual.inference.weights import load_network
from perceptual.naming import checked_name
from perceptual.settings import parse

from .loop import train
from .paintings import CATALOGUE, Painting, open_painting, read_catalogue
from .settings import DETERMINED, FROM_TRUNK, LearningSettings
from .sheets import sheet
from .styles import ManyStyles
from .task import FRAME_SIZE, model_file, prepare, provenance

COMPARED = 2  # photos on which the trunk's styles are compared with the painting
MIDDLE = slice(32, 224)  # the part of a sample photo that is used for it


def learning_settings(values: Mapping[str, Any]) -> LearningSettings:
    """Settings by option name; the losses default to those of the trunk's own recipe.

    Raises:
        WeightsError: There is no such file, or it is not a trunk.
        InvalidOption: A setting is invalid, determined by the trunk, or of no use with one.
    """
    if refused := [name for name in values if name.replace("-", "_") in DETERMINED]:
        raise InvalidOption(f"{refused[0]}: the trunk determines it; leave it out")
    if "content-image" in values:
        raise InvalidOption("content-image: with a trunk, the animation shows the first sample; leave it out")
    trunk = find_weights(parse(LearningSettings, values, DETERMINED).trunk)
    losses = trunk_losses(read_trunk(trunk).metadata["provenance"], values)
    return parse(LearningSettings, {**losses, **values, "trunk": trunk}, DETERMINED)


def trunk_losses(provenance: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The losses of a trunk's training, by option name.

    If the weights of its loss network were a file, and none is given, the loss network is the default: a style has the
    same weight by every loss network, as the photos' own style loss sets it.
    """
    recipe = provenance.get("recipe", {})
    losses = {name.replace("_", "-"): recipe[name] for name in FROM_TRUNK if name in recipe}
    if "loss_weights" in recipe and "loss-weights" not in values:
        losses.pop("loss-network", None)
    return losses


def learn_style(settings: LearningSettings, *, resume: bool = False) -> Path | None:
    """Learns a painting on a trunk. What is learned already is not learned again, so that what follows can be repeated.

    Returns:
        The style file, or None if a signal or ``settings.minutes`` stopped the training early.

    Raises:
        TrainingError: As in :func:`.loop.train`, or the loss network cannot be loaded.
        InputError: The painting or the name cannot be used, or settings contradict each other.
        WeightsError: The trunk cannot be read.
    """
    painting = open_painting(settings.style_image, {})  # before any work
    name = name_of(settings)
    check_style_name(model_file(settings, name).stem, settings.trunk)
    run, device = prepare(settings, name, resume=resume)
    if resume and run.has_done(settings.iterations) and is_of(run.model, painting, settings.trunk):
        return run.model
    task = Learning(settings, device)
    return run.model if train(task, settings, run, device, resume=resume) else None


def name_of(settings: LearningSettings) -> str:
    """The name given, or the painting's."""
    return settings.name or settings.style_image.stem


def check_style_name(name: str, trunk: Path) -> None:
    """Raises InputError if a style of that name could not be served, or would be taken for another style or network."""
    advice = "choose another --name for the style"
    checked_name(name, advice)
    if name in {each["name"] for each in styles_in(trunk)}:
        raise InvalidOption(f"{advice}; {trunk} has a style {name} already")
    if name in {trunk.stem, *shipped_weights()}:
        raise InvalidOption(f"{advice}; {name} is the name of a network")


def is_of(style: Path, painting: Painting, trunk: Path) -> bool:
    """Whether a style was learned from a painting on a trunk. Raises WeightsError if a file cannot be read."""
    provenance = read_metadata(style)["provenance"]
    learned_from = provenance.get("style_image_sha256"), provenance.get("trunk")
    return learned_from == (painting.sha256, read_trunk(trunk).trunk)


class Learning(ManyStyles):
    """A frozen trunk with one style, whose parameters alone are trained.

    Args:
        settings: What to train; as from :func:`learning_settings`.
        device: Where to train.
    """

    settings: LearningSettings

    def find_paintings(self) -> list[Painting]:
        """The painting, with its entry of the catalogue beside it."""
        file = self.settings.style_image
        return [open_painting(file, read_catalogue(file.parent / CATALOGUE).get(file.stem, {}))]

    def style_factors(self) -> dict[str, float]:
        """None: the painting has the same weight as those of the trunk."""
        return {}

    def style_draws(self) -> dict[str, float]:
        """None: there is one painting."""
        return {}

    def load_teacher(self, device: torch.device) -> None:
        """None: the painting is learned by its own losses."""

    def build(self, device: torch.device) -> StyleNetwork:
        """The trunk, frozen, initialized with its style of the lowest style loss for the painting."""
        trunk, _ = load_network(self.settings.trunk)
        assert isinstance(trunk, StyleNetwork)
        sizes = trunk.config["sizes"]
        if sizes != len(self.settings.style_sizes):
            raise InvalidOption(
                f"style-sizes: expected {sizes}, as the trunk has; got {len(self.settings.style_sizes)}"
            )
        self.trunk = read_trunk(self.settings.trunk).trunk
        network = StyleNetwork(**{**trunk.config, "styles": 1})
        nearest = self.nearest(trunk.to(device))
        network.load_state_dict({**trunk.state_dict(), "styles": trunk.styles[nearest : nearest + 1]})
        network.requires_grad_(False).styles.requires_grad_(True)
        return network

    @torch.no_grad()
    def nearest(self, trunk: StyleNetwork) -> int:
        """Index of the trunk's style with the lowest style loss for the painting."""
        photos = self.samples[:COMPARED, :, MIDDLE, MIDDLE]
        photos = with_grain(photos, [trunk.grain] * len(photos))
        fine = torch.zeros(len(photos), dtype=torch.long, device=photos.device)
        losses = [
            self.objective.style_loss.of_each(self.objective.features(trunk(photos, style[None])), fine).mean()
            for style in trunk.styles[:, 0]
        ]
        return int(torch.stack(losses).argmin())

    def sheet(self) -> Image.Image:
        """The painting beside each photo, and the photo in its style at each size."""
        painting = self.paintings[0].square(FRAME_SIZE)
        outputs = [self.stylized(photo[None], 0) for photo in self.samples]
        self.reached = {"style": float(self.remaining(self.samples[:1], outputs[0], 0))}
        return sheet([(painting, photo, *output) for photo, output in zip(self.samples, outputs, strict=True)])

    def save(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Writes the style file."""
        numbers: Tensor = self.network.styles[0].detach().float().cpu()
        save_style(path, numbers.numpy(), self.trunk, {**self.provenance(), **facts})

    def provenance(self) -> dict[str, Any]:
        """The provenance of the style."""
        (painting,) = self.paintings
        facts = {
            name: value for name, value in painting.provenance().items() if name != "licence"
        }  # that is the painting's licence, not the style's
        told = provenance(
            self.settings,
            **facts | {"name": name_of(self.settings)},
            description=f"Style transfer after {painting.name.replace('_', ' ')}",
            trunk=self.trunk,
            loss_network=self.origin,
        )
        told["recipe"] = {name: value for name, value in told["recipe"].items() if name not in DETERMINED}
        return told
