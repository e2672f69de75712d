"""The base class of the image transformation networks."""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .layers import Stack

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
EXAMPLE = 1, 3, 64, 96  # shape of an image; not square, so that compilers do not specialize on squares


class ImageTransformationNetwork(nn.Module):
    """A network that maps images to images.

    Attributes:
        task: Its task, as in the metadata of weight files.
        presets: Arguments of the constructor, by the preset's name.
        config: The arguments it was built with; enough to build it again.
        scale: Factor of enlargement.
        grain: Strength of the grain that images get before, from 0 to 1: see :mod:`perceptual.inference.grain`.
        reach: Radius of the receptive field, in input pixels; None if an output pixel depends on the whole image.
        tile: Side, in output pixels, of the largest square that is run in one pass; takes about 1.5 GiB with the
            default preset.
    """

    task: ClassVar[str]
    presets: ClassVar[dict[str, dict[str, Any]]]
    tile: ClassVar[int]
    scale = 1
    grain = 0.0
    reach: int | None = None

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        if config["init_features"] < 1:
            raise ValueError(f"init_features is {config['init_features']}; a network has 1 at least")
        self.config = config
        self.normalize = Normalize(config.get("in_channels", 3))

    @property
    @abstractmethod
    def transform(self) -> Stack:
        """The layers that engines run, on padded images N×3×H×W and, in networks with styles, styles N×P."""

    @property
    def example(self) -> tuple[Tensor, ...]:
        """Example inputs of ``transform``, with N = 1."""
        return (torch.zeros(EXAMPLE),)


class Normalize(nn.Module):
    """Maps RGB images in [0, 1], N×3×H×W, to the layers' input in [-1, 1]: RGB or, with one channel, the luma."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W to N×C×H×W."""
        x = (2 * images).sub_(1)
        return luma(x) if self.channels == 1 else x


def luma(images: Tensor) -> Tensor:
    """Brightness of RGB images, N×3×H×W to N×1×H×W (ITU-R BT.601 weights)."""
    weights = images.new_tensor(LUMA).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)
