"""Style transfer: one network for one painting (section 3 of Johnson et al. 2016)."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, resize, to_pil_image

from perceptual.errors import InvalidOption
from perceptual.inference import images
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.weights import save_network

from .data import resized_crops
from .grain import randomly_grained
from .grids import GridProminenceLoss
from .loop import train
from .objective import build_objective
from .peaks import PeakLoss
from .pictures import load_image
from .settings import StyleSettings
from .sheets import sheet
from .steadiness import NOISE, SteadinessLoss
from .task import (
    FRAME_SIZE,
    build_network,
    prepare,
    provenance,
    randomly_cropped,
    run_finished,
    sample_photos,
)

POOLED = 8  # pixels; the period of the loss network's third pooling, the last before relu4_3
STRIDE = 4  # pixels; of the transformation network's coarsest features


def train_style(settings: StyleSettings, *, resume: bool = False) -> Path | None:
    """Trains a style network.

    Returns:
        The weights file, or None if a signal or ``settings.minutes`` stopped the training early.

    Raises:
        TrainingError: As in :func:`.loop.train`, or the loss network cannot be loaded.
        InputError: The style image cannot be read, or settings contradict each other.
        WeightsError: The initial weights cannot be read.
    """
    run, device = prepare(settings, settings.name or settings.style_image.stem, resume=resume)
    task = StyleTransfer(settings, device)
    return run.model if train(task, settings, run, device, resume=resume) else None


class StyleTransfer:
    """Network and losses of a style training, on a device.

    Args:
        settings: The settings.
        device: The device.
    """

    def __init__(self, settings: StyleSettings, device: torch.device) -> None:
        self.settings = settings
        self.painting_sha256 = hashlib.sha256(images.read(settings.style_image)).hexdigest()
        self.samples = sample_photos(settings, settings.content_image).to(device)
        painting = load_image(settings.style_image, settings.style_size).to(device)
        self.objective, self.origin = build_objective(settings, [painting], device)
        # On a CPU, by measurement, the loss network is faster with channels last, the transformation network is not.
        self.memory_format = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        network = build_network(StyleNetwork, settings, in_channels=settings.in_channels, grain=settings.grain)
        if settings.grid_weight and network.config["normalization"] == "batch":
            raise InvalidOption("grid-weight: the preset's norms would count plain images as photos; leave it out")
        self.network = network.to(device).to(memory_format=self.memory_format)
        self.peaks = PeakLoss(self.network, settings.peak_weight)
        self.steadiness = SteadinessLoss(settings.steadiness_weight, STRIDE, NOISE)
        self.grids = GridProminenceLoss(settings.grid_weight, self.network.grain)
        self.crops = resized_crops(settings.image_size)
        self.painting = center_crop(resize(painting, [FRAME_SIZE], antialias=True), [FRAME_SIZE, FRAME_SIZE])[0]

    def losses(self, photos: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Weighted losses by name for photos N×3×H×W in [0, 1], and the stylized photos."""
        grained = randomly_grained(photos, self.network.grain)
        stylized = self.run(grained)
        seen, content = randomly_cropped(POOLED, stylized, photos)
        losses = {**self.objective(seen, self.objective.targets(content)), **self.peaks()}
        with self.peaks.paused():
            losses |= self.steadiness(self.run, grained, stylized)
            losses |= self.grids(self.run, photos, stylized)
        return losses, stylized

    def run(self, photos: Tensor) -> Tensor:
        """Stylizes photos N×3×H×W in [0, 1]."""
        stylized: Tensor = self.network(photos.contiguous(memory_format=self.memory_format))
        return stylized

    def sheet(self) -> Image.Image:
        """Each sample photo beside the painting and the stylized photo."""
        outputs = run_finished(self.network, self.samples)
        return sheet([(photo, self.painting, out) for photo, out in zip(self.samples, outputs, strict=True)])

    def figures(self) -> dict[str, float]:
        """No figures besides the losses."""
        return {}

    def frame(self) -> Image.Image:
        """The first sample, stylized."""
        return to_pil_image(run_finished(self.network, self.samples[:1])[0].cpu())

    def save(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Writes the network, with facts beside its provenance."""
        save_network(path, self.network, {**self.provenance(), **facts})

    def provenance(self) -> dict[str, Any]:
        """Provenance of the weights, for their metadata."""
        image = self.settings.style_image
        return provenance(
            self.settings,
            name=self.settings.name or image.stem,
            description=f"Style transfer after {image.stem.replace('_', ' ')}",
            style_image=image.name,
            style_image_sha256=self.painting_sha256,
            loss_network=self.origin,
        )
