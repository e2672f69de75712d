"""The objective of style transfer: the three losses of equation 5 of Johnson et al. 2016."""

from collections.abc import Iterable

import torch
from torch import Tensor

from .loss_network import LossNetwork, load_loss_network
from .losses import FeatureReconstructionLoss, Features, StyleReconstructionLoss, TotalVariationLoss
from .settings import OptimizationSettings, PaintingSettings, weights_by_layer


class StyleObjective:
    """Weighted sum of content, style and total variation losses.

    Args:
        loss_network: On the device, with channels last.
        content_loss: Compares images with their photos.
        style_loss: Compares images with the painting.
        total_variation: Regularizes images.
    """

    def __init__(
        self,
        loss_network: LossNetwork,
        content_loss: FeatureReconstructionLoss,
        style_loss: StyleReconstructionLoss,
        total_variation: TotalVariationLoss,
    ) -> None:
        self.loss_network = loss_network
        self.content_loss = content_loss
        self.style_loss = style_loss
        self.total_variation = total_variation

    @property
    def device(self) -> torch.device:
        """The device of the loss network, on which images have to be."""
        return next(self.loss_network.parameters()).device

    @torch.no_grad()
    def targets(self, photos: Tensor) -> Features:
        """Content features of photos N×3×H×W in [0, 1], the targets of the content loss."""
        return self.loss_network(photos.contiguous(memory_format=torch.channels_last), self.content_loss.weights)

    def __call__(self, images: Tensor, targets: Features) -> dict[str, Tensor]:
        """Weighted losses by name of images N×3×H×W, given their targets; their sum is the objective."""
        features = self.features(images)
        return {
            "content": self.content_loss(features, targets),
            "style": self.style_loss(features),
            "total_variation": self.total_variation(images),
        }

    def features(self, images: Tensor) -> Features:
        """Features of images N×3×H×W at every layer used by a loss."""
        seen = images.contiguous(memory_format=torch.channels_last)
        return self.loss_network(seen, [*self.content_loss.weights, *self.style_loss.weights])


def build_objective(
    settings: PaintingSettings | OptimizationSettings, paintings: Iterable[Tensor], device: torch.device
) -> tuple[StyleObjective, str]:
    """Builds the objective of a training's settings.

    Args:
        settings: Layers and weights, and the loss network.
        paintings: The style images, 1×3×H×W in [0, 1] each.
        device: Device of the computation.

    Returns:
        The objective, and a one-line description of the loss network's weights.

    Raises:
        TrainingError: The loss network cannot be loaded.
        InvalidOption: Layers and weights do not match.
    """
    content = weights_by_layer(settings.content_layers, settings.content_weight, "content-weight")
    style = weights_by_layer(settings.style_layers, settings.style_weights, "style-weights")
    loss_network, origin = load_loss_network(
        settings.loss_network, [*content, *style], settings.loss_weights, settings.loss_weights_sha256
    )
    loss_network = loss_network.to(device).to(memory_format=torch.channels_last)
    with torch.no_grad():
        style_loss = StyleReconstructionLoss(style, *(loss_network(each.to(device), style) for each in paintings))
    objective = StyleObjective(
        loss_network, FeatureReconstructionLoss(content), style_loss, TotalVariationLoss(settings.reg_weight)
    )
    return objective, origin
