"""Super-resolution: one network for one upscaling factor (section 4.2 of Johnson et al. 2016)."""

import copy
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from perceptual.errors import InvalidOption
from perceptual.inference.networks import SuperResolutionNetwork
from perceptual.inference.networks.super_resolution import blended
from perceptual.inference.resampling import resize_bicubic
from perceptual.inference.weights import save_network

from .data import plain_crops
from .degradation import Draws, degrade, draw
from .loop import train
from .loss_network import load_loss_network
from .losses import FeatureReconstructionLoss, GridLoss, PixelLoss, TotalVariationLoss
from .settings import SuperResolutionSettings, weights_by_layer
from .sheets import sheet
from .steadiness import SteadinessLoss
from .task import build_network, prepare, provenance, randomly_cropped, run_finished, sample_photos
from .texture import TextureLoss

LOSSES = {"feature": "feature loss", "pixel": "pixel loss", "both": "feature and pixel loss"}
POOLED = 4  # pixels; period of the loss network's second pooling; the default layer comes after the first


def train_super_resolution(settings: SuperResolutionSettings, *, resume: bool = False) -> Path | None:
    """Trains a super-resolution network.

    Returns:
        The weights file, or None if a signal or ``settings.minutes`` stopped the training early.

    Raises:
        TrainingError: As in :func:`.loop.train`.
        InvalidOption: Settings contradict each other.
        WeightsError: The initial weights cannot be read.
    """
    run, device = prepare(settings, name_of(settings), resume=resume)
    task = SuperResolution(settings, device)
    return run.model if train(task, settings, run, device, resume=resume) else None


class SuperResolution:
    """Network and losses of a super-resolution training, on a device.

    Args:
        settings: The settings.
        device: The device.

    Raises:
        InvalidOption: The targets' size is not divisible by the factor, or the layers and weights do not match.
    """

    def __init__(self, settings: SuperResolutionSettings, device: torch.device) -> None:
        self.settings = settings
        self.scale = settings.upscale_factor
        if settings.blend == "yes" and not settings.initial_weights:
            raise InvalidOption("blend: needs --initial-weights, a network trained by the pixel loss")
        if settings.image_size % self.scale:
            raise InvalidOption(
                f"image-size: expected a multiple of --upscale-factor {self.scale}, got {settings.image_size}"
            )
        if settings.grid_weight and settings.image_size < GridLoss.window * self.scale:
            raise InvalidOption(
                f"image-size: the grid loss needs {GridLoss.window * self.scale} at least, got {settings.image_size}"
            )
        blend = settings.blend == "yes"
        network = build_network(SuperResolutionNetwork, settings, keeps_initial=blend, scale=self.scale)
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.faithful = copy.deepcopy(self.network) if blend else None
        self.crops = plain_crops(settings.image_size)
        self.pixel_loss = PixelLoss(settings.pixel_weight)
        self.grid_loss = GridLoss(settings.grid_weight, self.scale)
        self.texture_loss = TextureLoss(settings.texture_weight).to(device)
        self.steadiness = SteadinessLoss(settings.steadiness_weight, self.scale)
        self.total_variation = TotalVariationLoss(settings.reg_weight)
        self.origin: str | None = None
        if settings.loss != "pixel":
            content = weights_by_layer(settings.content_layers, settings.content_weight, "content-weight")
            loss_network, self.origin = load_loss_network(
                settings.loss_network, content, settings.loss_weights, settings.loss_weights_sha256
            )
            self.loss_network = loss_network.to(device).to(memory_format=torch.channels_last)
            self.feature_loss = FeatureReconstructionLoss(content)
        self.samples = sample_photos(settings).to(device)

    def losses(self, photos: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Weighted losses by name for target photos N×3×H×W in [0, 1], and the outputs for their reductions."""
        targets = photos.contiguous(memory_format=torch.channels_last)
        draws = draw(len(photos)) if self.settings.degradation == "mixed" else None
        run = partial(self.enlarge, draws=draws)
        outputs = run(targets)
        losses = {}
        if self.settings.loss != "pixel":
            seen, targets_seen = randomly_cropped(POOLED, outputs, targets)
            with torch.no_grad():
                features = self.loss_network(targets_seen, self.feature_loss.weights)
            losses["feature"] = self.feature_loss(self.loss_network(seen, self.feature_loss.weights), features)
        if self.settings.loss != "feature":
            losses["pixel"] = self.pixel_loss(outputs, targets)
        if self.settings.grid_weight:
            losses["grid"] = self.grid_loss(outputs, targets)
        if self.settings.texture_weight:
            losses["texture"] = self.texture_loss(outputs, targets)
        losses |= self.steadiness(run, targets, outputs)
        return {**losses, "total_variation": self.total_variation(outputs)}, outputs

    def enlarge(self, photos: Tensor, draws: Draws | None) -> Tensor:
        """What the network makes of reductions of photos."""
        inputs = self.reduce(photos, draws).contiguous(memory_format=torch.channels_last)
        outputs: Tensor = self.network(inputs)
        return outputs

    def reduce(self, photos: Tensor, draws: Draws | None = None) -> Tensor:
        """Low-resolution inputs for photos."""
        return degrade(photos, self.scale, self.settings.degradation, draws)

    def sample_inputs(self) -> Tensor:
        """Inputs for the sample photos, the same each time; the random numbers of the training remain as they are."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.reduce(self.samples)

    def sheet(self) -> Image.Image:
        """For each sample photo: the low-resolution input, its bicubic enlargement, the network's, and the photo."""
        inputs = self.sample_inputs()
        columns = (
            F.interpolate(inputs, scale_factor=self.scale),  # its pixels as squares
            resize_bicubic(inputs, self.scale),
            run_finished(self.network, inputs),
            self.samples,
        )
        return sheet(list(zip(*columns, strict=True)))

    def figures(self) -> dict[str, float]:
        """No figures besides the losses."""
        return {}

    def frame(self) -> Image.Image:
        """The first sample, enlarged."""
        return to_pil_image(run_finished(self.network, self.sample_inputs()[:1])[0].cpu())

    def save(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Writes the network, blended with the initial one if the settings ask for it, with facts and provenance."""
        with torch.random.fork_rng(devices=[]):  # building a network draws random weights
            network = blended(self.network, self.faithful) if self.faithful else self.network
        save_network(path, network, {**self.provenance(), **facts})

    def provenance(self) -> dict[str, Any]:
        """Provenance of the weights, for their metadata."""
        return provenance(
            self.settings,
            name=name_of(self.settings),
            description=f"Super-resolution ×{self.scale}, {LOSSES[self.settings.loss]}",
            degradation=self.settings.degradation,
            loss_network=self.origin,
        )


def name_of(settings: SuperResolutionSettings) -> str:
    """The name given, or one such as ``super_resolution_x4_pixel``."""
    return settings.name or f"super_resolution_x{settings.upscale_factor}_{settings.loss}"
