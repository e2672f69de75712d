"""Style transfer: one network for one painting (section 3 of Johnson et al. 2016)."""

import hashlib
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torchvision
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, resize, to_pil_image

import perceptual
from perceptual import images
from perceptual.errors import InputError, TrainingError
from perceptual.networks import StyleNetwork

from .data import find_photos
from .loop import Run, train
from .loss_network import load_loss_network
from .losses import FeatureReconstructionLoss, StyleReconstructionLoss, TotalVariationLoss
from .settings import StyleSettings, plain, weights_by_layer
from .sheets import sheet

FRAME_SIZE = 256  # pixels; side of a sample


def train_style(settings: StyleSettings, *, resume: bool = False) -> Path | None:
    """Trains a style network.

    Returns:
        The weights file, or None if a signal stopped the training early.

    Raises:
        TrainingError: As in :func:`.loop.train`, or the style image cannot be read.
        InvalidOption: Settings that do not go together.
    """
    name = settings.name or settings.style_image.stem
    run = Run(
        name, settings.sample_path or Path("runs", name), settings.model_path or Path("models", f"{name}.safetensors")
    )
    torch.manual_seed(settings.seed)
    device = torch.device(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    task = StyleTransfer(settings, device)
    return run.model if train(task, settings, run, device, resume=resume) else None


class StyleTransfer:
    """Network and losses of a style training, on a device.

    Args:
        settings: What to train; as given by the user.
        device: Where to train.
    """

    def __init__(self, settings: StyleSettings, device: torch.device) -> None:
        self.settings = settings
        # On a CPU the transformation network is faster as it is, the loss network with channels last; measured.
        self.memory_format = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        self.network = build_network(settings).to(device).to(memory_format=self.memory_format)
        content = weights_by_layer(settings.content_layers, settings.content_weight, "content-weight")
        style = weights_by_layer(settings.style_layers, settings.style_weights, "style-weights")
        loss_network, self.origin = load_loss_network(
            settings.loss_network, [*content, *style], settings.loss_weights, settings.loss_weights_sha256
        )
        self.loss_network = loss_network.to(device).to(memory_format=torch.channels_last)
        painting = load_image(settings.style_image, settings.style_size).to(device)
        self.content_loss = FeatureReconstructionLoss(content)
        self.style_loss = StyleReconstructionLoss(style, self.loss_network(painting, style)).to(device)
        self.total_variation = TotalVariationLoss(settings.reg_weight)
        self.samples = sample_photos(settings).to(device)
        self.painting = center_crop(resize(painting, [FRAME_SIZE], antialias=True), [FRAME_SIZE, FRAME_SIZE])[0]

    def losses(self, photos: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Weighted losses by name for photos N×3×H×W in [0, 1], and the stylized photos."""
        stylized = self.network(photos.contiguous(memory_format=self.memory_format))
        with torch.no_grad():
            targets = self.loss_network(photos.contiguous(memory_format=torch.channels_last), self.content_loss.weights)
        seen = stylized.contiguous(memory_format=torch.channels_last)
        features = self.loss_network(seen, [*self.content_loss.weights, *self.style_loss.weights])
        losses = {
            "content": self.content_loss(features, targets),
            "style": self.style_loss(features),
            "total_variation": self.total_variation(stylized),
        }
        return losses, stylized

    def sheet(self) -> Image.Image:
        """Each sample photo beside the painting and the stylized photo."""
        outputs = self.stylize(self.samples)
        return sheet([(photo, self.painting, out) for photo, out in zip(self.samples, outputs, strict=True)])

    def frame(self) -> Image.Image:
        """The first sample, stylized."""
        return to_pil_image(self.stylize(self.samples[:1])[0].cpu())

    @torch.no_grad()
    def stylize(self, photos: Tensor) -> Tensor:
        """The photos through the network as it will be used: in evaluation mode, in float32."""
        self.network.eval()
        outputs = torch.cat([self.network(photo[None]) for photo in photos])
        self.network.train()
        return outputs

    def provenance(self) -> dict[str, Any]:
        """Where the weights come from, in words and numbers."""
        settings = self.settings
        image = settings.style_image
        return {
            "name": settings.name or image.stem,
            "description": f"Style transfer after {image.stem.replace('_', ' ')}",
            "style_image": image.name,
            "style_image_sha256": hashlib.sha256(image.read_bytes()).hexdigest(),
            "loss_network": self.origin,
            "licence": settings.licence,
            "recipe": {key: value for key, value in plain(settings).items() if value is not None},
            "versions": {
                "torchserve-perceptual": perceptual.__version__,
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
                "python": platform.python_version(),
            },
        }


def build_network(settings: StyleSettings) -> StyleNetwork:
    """The preset's network, with what the settings change of it."""
    wishes = {key: getattr(settings, key) for key in ("in_channels", "init_features", "num_residuals")}
    config = {**StyleNetwork.presets[settings.preset], **{k: v for k, v in wishes.items() if v is not None}}
    return StyleNetwork(**config)


def load_image(path: Path, size: int) -> Tensor:
    """An image with its shorter side resized to ``size`` pixels, 1×3×H×W in [0, 1]."""
    photo = images.decode(images.read(path)).rgb
    return resize(photo[None], [size], antialias=True).float() / 255


def sample_photos(settings: StyleSettings) -> Tensor:
    """The photos of the sample sheets, N×3×256×256 in [0, 1]: such as are not trained on, where the folder has any."""
    try:
        files = find_photos(settings.content_dir, "validation" if settings.split == "train" else "train")
    except TrainingError:
        files = find_photos(settings.content_dir, settings.split)
    spread = files[:: max(1, len(files) // settings.samples)]
    photos = [load_image(settings.content_image, FRAME_SIZE)] if settings.content_image else []
    for file in spread:
        if len(photos) < settings.samples:
            with suppress(InputError):  # the training itself counts and names the unreadable files
                photos.append(load_image(file, FRAME_SIZE))
    if not photos:
        raise TrainingError(f"none of {len(spread)} photos tried in {settings.content_dir} can be read")
    return torch.cat([center_crop(photo, [FRAME_SIZE, FRAME_SIZE]) for photo in photos])
