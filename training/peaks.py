"""The peak loss, against small regions that dominate the statistics of a norm."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptual.inference.networks.norms import InstanceNorm

from .losses import wide

REGIONS = 24  # in a row; regions of 8 px in crops of 192 px
LIMIT = 6.0  # energy up to which a region has no loss; the mean over regions is 1


class PeakLoss(nn.Module):
    """Measures, in every instance norm of a network, by how much the energy of regions exceeds a limit.

    With instance norms, a network can learn to make one small region so strong, in all channels, that it determines
    mean and deviation, and thereby the gain of the rest of the picture. Karras et al. 2020 (https://arxiv.org/abs/1912.04958,
    section 2) found such droplets in generated faces. In style transfer they become flat black regions, which
    hardly affect the Gram matrices of the whole picture. Edges and specks are small or strong in few channels only, and
    have no loss.

    Args:
        network: Its norms are measured when it runs in training mode.
        weight: Factor of the loss; with 0 nothing is measured.
    """

    def __init__(self, network: nn.Module, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.measured: list[Tensor] = []
        self.measuring = True
        if weight > 0:
            for norm in network.modules():
                if isinstance(norm, InstanceNorm):
                    norm.register_forward_pre_hook(self.measure)

    def measure(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Called before a norm runs."""
        if norm.training and self.measuring:
            self.measured.append(excess(inputs[0]))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Measures nothing for the length of a block, where the network runs for another loss."""
        self.measuring = False
        try:
            yield
        finally:
            self.measuring = True

    def forward(self) -> dict[str, Tensor]:
        """The loss of the last pictures, summed over norms, as ``peaks``; nothing if nothing is measured."""
        measured = self.measured.copy()
        self.measured.clear()
        return {"peaks": self.weight * torch.stack(measured).sum()} if measured else {}


def excess(x: Tensor) -> Tensor:
    """Mean square of the regions' energy above the limit, for inputs of a norm N×C×H×W.

    The energy of a region is the mean square, over channels, of its mean after normalization.
    """
    x = wide(x)
    variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
    means = F.avg_pool2d(x, max(1, min(x.shape[-2:]) // REGIONS))
    energy = ((means - mean) * (variance + InstanceNorm.eps).rsqrt()).square().mean(dim=1)
    return (energy - LIMIT).relu().square().mean()
