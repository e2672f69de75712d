"""Many styles learned from the pictures of a larger network, instead of by the losses of a loss network.

As in Hinton et al. 2015 (https://arxiv.org/abs/1503.02531): a small network learns more easily what a large one answers
than what that one was trained for. It is quicker too, as no crop runs through a loss network; that is loaded only to
measure the style loss of the sample sheets. Pixels alone make soft strokes where the small network cannot follow, so a
training by the losses should come after it.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from perceptual.errors import InvalidOption
from perceptual.inference.metadata import find_weights, styles_in
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.weights import load_network

from .losses import PixelLoss


class DistillationLoss(nn.Module):
    """Mean square difference of pixels from 0 to 255 between pictures and those of a teacher, a larger network.

    Args:
        teacher: File or name of the teacher.
        names: The styles to learn.
        sizes: At how many sizes each.

    Attributes:
        digest: SHA-256 of the teacher's file.

    Raises:
        WeightsError: The teacher cannot be read.
        InvalidOption: It lacks one of the styles, or has another number of sizes.
    """

    styles: Tensor

    def __init__(self, teacher: Path, names: Sequence[str], sizes: int) -> None:
        super().__init__()
        file = find_weights(teacher)
        network, _ = load_network(file)
        rows = {each["name"]: row for row, each in enumerate(styles_in(file))}
        if missing := [name for name in names if name not in rows]:
            raise InvalidOption(f"teacher: {file} has no style {missing[0]}, which is among the paintings")
        assert isinstance(network, StyleNetwork)  # as others have no styles
        if network.config["sizes"] != sizes:
            raise InvalidOption(f"style-sizes: expected {network.config['sizes']}, as the teacher has; got {sizes}")
        self.teacher = network
        self.register_buffer("styles", network.styles[[rows[name] for name in names]].flatten(0, 1))
        self.compared = PixelLoss(1)
        self.digest = hashlib.sha256(file.read_bytes()).hexdigest()

    def forward(self, photos: Tensor, which: Tensor, pictures: Tensor) -> Tensor:
        """Compares pictures with the teacher's.

        Args:
            photos: N×3×H×W in [0, 1].
            which: For each, the index of its style among ``names``, times ``sizes``, plus that of its size.
            pictures: Of the photos, N×3×H×W.
        """
        with torch.no_grad():
            expected = self.teacher(photos, self.styles[which])
        loss: Tensor = self.compared(pictures, expected)
        return loss
