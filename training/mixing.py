"""Interpolates the weights that a training writes with the initial weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from perceptual.inference.metadata import find_weights
from perceptual.inference.networks import ImageTransformationNetwork, SuperResolutionNetwork
from perceptual.inference.networks.super_resolution import FAITHFUL
from perceptual.inference.weights import load_network

from .settings import TrainingSettings


def initial_weights(settings: TrainingSettings) -> Mapping[str, Tensor]:
    """The initial weights, if a share of them is kept. Raises WeightsError."""
    if not settings.initial_weights or not settings.initial_share:
        return {}
    with torch.random.fork_rng(devices=[]):  # building a network draws random weights
        return load_initial(settings.initial_weights).state_dict()


def load_initial(name_or_path: Path) -> ImageTransformationNetwork:
    """The network of a file, from which a training begins; of two sets of weights, the faithful one.

    Raises:
        WeightsError: The file cannot be read.
    """
    network, _ = load_network(find_weights(name_or_path))
    return network.settled(FAITHFUL) if isinstance(network, SuperResolutionNetwork) else network


@contextmanager
def mixed_with(network: nn.Module, initial: Mapping[str, Tensor], share: float) -> Iterator[None]:
    """Sets the network, for the length of a block, to its weights interpolated with the initial weights, if any.

    Interpolating two networks of a common origin gives a network of similar quality: section 3.4 of Wang et al. 2018
    (https://arxiv.org/abs/1809.00219).
    """
    if not initial:
        yield
        return
    trained = {name: value.clone() for name, value in network.state_dict().items()}
    if "styles" in trained:
        initial = {**initial, "styles": styles_like(initial["styles"], trained["styles"])}
    mixed = {
        name: value.lerp(initial[name].to(value.device), share) if value.is_floating_point() else value
        for name, value in trained.items()
    }
    network.load_state_dict(mixed)
    try:
        yield
    finally:
        network.load_state_dict(trained)


def styles_like(initial: Tensor, styles: Tensor) -> Tensor:
    """A table of styles, N×S×P for S sizes of strokes, in the shape of another.

    Where the number of styles or sizes differs, all begin with the mean.
    """
    for dim in (0, 1):
        if initial.shape[dim] != styles.shape[dim]:
            initial = initial.mean(dim, keepdim=True)
    return initial.expand_as(styles).to(styles.device)
