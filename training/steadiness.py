"""The steadiness loss, against pictures that change where the photo hardly does."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .losses import wide
from .task import randomly_cropped

SHIFT = 4  # pixels; the largest shift, and the step of the network's coarsest features
NOISE = 4 / 255  # standard deviation; the noise of a photo
EDGE = 12  # pixels at each edge that are not compared, as the shifted photo has another padding


class SteadinessLoss(nn.Module):
    """How much a picture changes when its photo is shifted a little and gets faint noise, times a weight.

    From frame to frame of a video, a still object moves by some pixels and has other noise. A network that reduces its
    input by strides draws its strokes differently for each. The loss is the mean square of the difference, with pixels
    from 0 to 255, between the picture of the changed photo and the picture, shifted alike.

    Args:
        weight: Factor of the loss; with 0 nothing is measured.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, run: Callable[[Tensor], Tensor], photos: Tensor, pictures: Tensor) -> dict[str, Tensor]:
        """The loss as ``steadiness``; nothing if the weight is 0.

        Args:
            run: The network, from photos to pictures.
            photos: N×3×H×W in [0, 1], with sides of at least 32.
            pictures: What the network makes of them, N×3×H×W.
        """
        if not self.weight:
            return {}
        shifted, expected = randomly_cropped(SHIFT + 1, photos, pictures)
        found = run(shifted + NOISE * torch.randn_like(shifted))
        change = 255 * (wide(found) - wide(expected))[..., EDGE:-EDGE, EDGE:-EDGE]
        return {"steadiness": self.weight * change.square().mean()}
