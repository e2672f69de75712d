"""What all image transformation networks have in common."""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .layers import Stack

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
EXAMPLE = 1, 3, 64, 96  # an image; not a square, so that compilers do not take all for such


class ImageTransformationNetwork(nn.Module):
    """What every network says of itself.

    Attributes:
        task: What it does, as written in weight files.
        presets: Arguments of the constructor, by name.
        config: The arguments it was built with; enough to build it anew.
        scale: How many times higher and wider than the input the output is.
        reach: How many input pixels around it an output pixel depends on; None if on the whole image.
        tile: Side, in output pixels, of the square that is worked on at once: about 1.5 GiB by the default preset.
    """

    task: ClassVar[str]
    presets: ClassVar[dict[str, dict[str, Any]]]
    tile: ClassVar[int]
    scale = 1
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
        """All layers, for padded images N×3×H×W and, of a network with styles, styles N×P; engines run them."""

    @property
    def example(self) -> tuple[Tensor, ...]:
        """What ``transform`` can be given, with N = 1."""
        return (torch.zeros(EXAMPLE),)


class Normalize(nn.Module):
    """Makes of RGB images in [0, 1], N×3×H×W, what layers take: in [-1, 1], with 1 channel their luma."""

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
