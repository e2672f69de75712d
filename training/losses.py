"""Perceptual losses, as in section 3.2 of Johnson et al. 2016.

All take batches of features or images, and return the mean over the batch as a float32 scalar.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Features = Mapping[str, Tensor]


def gram_matrix(features: Tensor) -> Tensor:
    """Uncentred covariance of the channels, equation 3 of the paper.

    Args:
        features: N×C×H×W.

    Returns:
        N×C×C, divided by C·H·W, in float32 at least: in half precision, sums over a whole image overflow or lose small
        terms.
    """
    n, c, h, w = features.shape
    with torch.autocast(features.device.type, enabled=False):
        flat = features.permute(0, 2, 3, 1).reshape(n, h * w, c)  # a view if channels are last
        product: Tensor = SelfProduct.apply(flat)
        return product / (c * h * w)


class SelfProduct(torch.autograd.Function):
    """XᵀX of N×P×C as N×C×C, in float32 at least, with a gradient by one product instead of two and their sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Multiplies."""
        ctx.save_for_backward(x)
        factor = wide(x)
        return factor.mT @ factor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """X(G + Gᵀ), in the type of X."""
        (x,) = ctx.saved_tensors
        return x @ (gradient + gradient.mT).to(x.dtype)


class FeatureReconstructionLoss(nn.Module):
    """Squared Euclidean distance of features, divided by C·H·W (equation 2), times a weight, summed over layers.

    Args:
        weights: Weight of each layer, by name.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights = dict(weights)

    def forward(self, features: Features, targets: Features) -> Tensor:
        """Compares two sets of features, each N×C×H×W; the targets are constants."""
        terms = [
            weight * (wide(features[layer]) - wide(targets[layer]).detach()).square().mean()
            for layer, weight in self.weights.items()
        ]
        return torch.stack(terms).sum()


class StyleReconstructionLoss(nn.Module):
    """Mean squared difference of Gram matrices, times a weight, summed over layers.

    Equation 4 takes the squared Frobenius norm, the sum over all C² entries. The authors' own code
    (https://github.com/jcjohnson/fast-neural-style) takes the mean, and so does this class: then a weight has the same
    effect for layers of 64 and of 512 channels, and weights published for that code can be used here.

    Args:
        weights: Weight of each layer, by name.
        targets: Features of each of K style images, 1×C×H×W by layer; only their Gram matrices are kept, as buffers.
    """

    def __init__(self, weights: Mapping[str, float], *targets: Features) -> None:
        super().__init__()
        self.weights = dict(weights)
        for layer in self.weights:
            grams = torch.cat([gram_matrix(features[layer]) for features in targets])
            self.register_buffer(layer, grams.detach(), persistent=False)

    def layers(self, features: Features, which: Tensor | None = None) -> dict[str, Tensor]:
        """The unweighted loss of every layer, for each of N images.

        Args:
            features: Of the images, N×C×H×W by layer.
            which: The index of each image's style image, N numbers below K. By default, K or N must be 1: one image or
                style image is compared with all of the others.
        """
        losses = {}
        for layer in self.weights:
            targets = getattr(self, layer)
            targets = targets if which is None else targets[which]
            losses[layer] = (gram_matrix(features[layer]) - targets).square().mean(dim=(1, 2))
        return losses

    def of_each(self, features: Features, which: Tensor | None = None) -> Tensor:
        """The weighted loss of each of N images; arguments as for :meth:`layers`."""
        return torch.stack([self.weights[layer] * loss for layer, loss in self.layers(features, which).items()]).sum(0)

    def forward(self, features: Features) -> Tensor:
        """Compares features of N images, N×C×H×W each, with the one style image."""
        return self.of_each(features).mean()


class PixelLoss(nn.Module):
    """Squared Euclidean distance of pixels from 0 to 255, divided by C·H·W (section 3.2), times a weight.

    On this scale, which is the loss network's too, a distance of 65 is a PSNR of 30 dB.

    Args:
        weight: Factor of the loss.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Compares two sets of images in [0, 1], each N×C×H×W; the targets are constants."""
        return self.weight * (255 * (wide(images) - wide(targets).detach())).square().mean()


class GridLoss(nn.Module):
    """How much of the error repeats with a period, as a grid does, times a weight.

    Features of a loss network welcome fine texture, and a network that ends in a pixel shuffle can draw one most easily
    by shifting the pixels of each phase, which is the same in every period: a weave over the whole picture. In each
    window of 8 × 8 periods the error is averaged over the pixels of each phase; the loss is the variance of these
    averages between the phases. Detail that does not repeat averages out. Pixels are from 0 to 255. For pictures
    in a style, which have no target, there is :class:`.GridProminenceLoss`.

    Args:
        weight: Factor of the loss.
        period: Period of the grid in pixels: the factor of enlargement.
    """

    window = 8  # periods

    def __init__(self, weight: float, period: int) -> None:
        super().__init__()
        self.weight = weight
        self.period = period

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Compares images in [0, 1] with their targets, N×C×H×W, of whole periods, at least 8 by 8."""
        error = 255 * (wide(images) - wide(targets).detach())
        phases = F.avg_pool2d(F.pixel_unshuffle(error, self.period), self.window, stride=self.window // 2)
        return self.weight * phases.unflatten(1, (-1, self.period**2)).var(dim=2, correction=0).mean()


class TotalVariationLoss(nn.Module):
    """Squared differences of neighbouring pixels, averaged over pixels and channels, times a weight.

    The total variation regularizer of Mahendran and Vedaldi 2015 (https://arxiv.org/abs/1412.0035, equation 4) with
    β = 2, per pixel, so that a weight means the same at every image size.

    Args:
        weight: Factor of the loss.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, images: Tensor) -> Tensor:
        """Measures images N×C×H×W with H and W of at least 2."""
        images = wide(images)
        down, right = images.diff(dim=2), images.diff(dim=3)
        return self.weight * (down.square().mean() + right.square().mean())


def wide(x: Tensor) -> Tensor:
    """Converts to float32 at least: squares of half-precision features overflow."""
    return x if x.dtype == torch.float64 else x.float()
