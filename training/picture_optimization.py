"""Style transfer by optimizing the picture itself, as Gatys et al. 2016.

It needs no training, but hundreds of passes through the loss network for one picture. The paper compares its networks
with it (section 4.1 and figure 5): "we minimize Equation 5 using projected L-BFGS by clipping the image y
to the range [0, 255] at each iteration".
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from perceptual.errors import InvalidImage, TrainingError
from perceptual.inference import images
from perceptual.inference.images import Picture
from perceptual.inference.predictor import open_picture, pick_device

from .objective import build_objective
from .pictures import load_image
from .settings import OptimizationSettings

SMALLEST = 16  # pixels; side of an image whose features the loss network's deeper layers can still compute
HISTORY = 10  # pairs that L-BFGS keeps, each as large as two pictures; with 100, losses are 0.5 % lower


class Step(NamedTuple):
    """The picture after a number of iterations, 1×3×H×W in [0, 1], and its weighted losses by name."""

    iteration: int
    image: Tensor
    losses: dict[str, float]

    @property
    def total(self) -> float:
        """The objective's value."""
        return sum(self.losses.values())


def optimize(losses: Callable[[Tensor], Mapping[str, Tensor]], start: Tensor, iterations: int) -> Iterator[Step]:
    """Minimizes the sum of losses by L-BFGS, with the picture clipped to [0, 1] at each iteration.

    An iteration is one evaluation of the losses and their gradient; a line search would take two or more of them for
    the same progress.

    Args:
        losses: Returns the weighted losses of a picture by name, for example of a :class:`.objective.StyleObjective`
            and its targets.
        start: The initial picture, 1×3×H×W in [0, 1]: the photo, or noise.
        iterations: Number of iterations.

    Yields:
        The initial picture, then the picture after every iteration, with its losses: ``iterations + 1`` steps.

    Raises:
        TrainingError: A loss or a gradient is no longer finite.
    """
    image = start.detach().clone().requires_grad_()
    # One iteration per call; the optimizer keeps its curvature estimate. Tolerances would end it early.
    optimizer = torch.optim.LBFGS([image], max_iter=1, history_size=HISTORY, tolerance_grad=0, tolerance_change=0)
    terms: Mapping[str, Tensor] = {}

    def evaluate() -> Tensor:
        nonlocal terms
        optimizer.zero_grad()
        terms = losses(image)
        total = torch.stack(list(terms.values())).sum()
        total.backward()
        return total

    for iteration in range(iterations + 1):
        before = image.detach().clone()
        total = optimizer.step(evaluate)  # evaluates, then moves
        if not torch.isfinite(total) or image.grad is None or not torch.isfinite(image.grad).all():
            raise TrainingError(
                f"the losses are no longer finite after {iteration} iterations; lower the weights of the losses"
            )
        yield Step(iteration, before, {name: float(value.detach()) for name, value in terms.items()})
        with torch.no_grad():
            image.clamp_(0, 1)
            # L-BFGS must estimate curvature from the step after clipping; else losses sometimes rise, and end higher.
            state = optimizer.state[image]
            if "t" in state:  # missing after a gradient of zero
                state["d"] = ((image - before) / state["t"]).flatten()


def initial_picture(start: str, photo: Tensor, seed: int = 0) -> Tensor:
    """The initial picture of an optimization, 1×3×H×W in [0, 1].

    Args:
        start: ``photo`` is the photo itself; ``noise`` is white noise, as in https://github.com/jcjohnson/neural-style.
        photo: On any device.
        seed: Of the noise, which is the same on every device.
    """
    if start == "photo":
        return photo
    return torch.rand(photo.shape, generator=torch.Generator().manual_seed(seed)).to(photo.device)


class Optimization:
    """Optimization of one photo for a style.

    Args:
        settings: As given by the user.
        photo: An image file.

    Raises:
        InputError: Photo or style image cannot be read, or the photo has too few pixels.
        TrainingError: The loss network cannot be loaded.
    """

    def __init__(self, settings: OptimizationSettings, photo: Path) -> None:
        self.settings = settings
        self.photo = images.shrink(open_picture(photo), settings.max_size).without_hidden_colors()
        if min(self.photo.rgb.shape[1:]) < SMALLEST:
            height, width = self.photo.rgb.shape[1:]
            raise InvalidImage(f"{photo}: {width}×{height} pixels are too few; {SMALLEST} a side are needed")
        self.device = pick_device(settings.device)
        painting = load_image(settings.style_image, settings.style_size)
        self.objective, _ = build_objective(settings, [painting], self.device)

    def steps(self) -> Iterator[Step]:
        """All steps, as from :func:`optimize`."""
        photo = self.photo.rgb[None].to(self.device).float() / 255
        start = initial_picture(self.settings.start, photo, self.settings.seed)
        targets = self.objective.targets(photo)
        return optimize(lambda image: self.objective(image, targets), start, self.settings.iterations)

    def picture(self, step: Step) -> Picture:
        """A step's picture, with the photo's alpha and metadata."""
        return replace(self.photo, rgb=(step.image[0] * 255).round().to(torch.uint8).cpu())
