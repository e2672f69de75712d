"""Interpolates the weights that a training writes with the initial weights."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from perceptual.inference.metadata import find_weights, styles_in
from perceptual.inference.networks import ImageTransformationNetwork, StyleNetwork, SuperResolutionNetwork
from perceptual.inference.networks.super_resolution import FAITHFUL
from perceptual.inference.weights import load_network

from .settings import TrainingSettings


def initial_weights(settings: TrainingSettings, network: nn.Module, names: Sequence[str]) -> Mapping[str, Tensor]:
    """The initial weights of a network of named styles, if a share of them is kept. Raises WeightsError."""
    if not settings.initial_weights or not settings.initial_share:
        return {}
    with torch.random.fork_rng(devices=[]):  # building a network draws random weights
        return state_for(network, settings.initial_weights, load_initial(settings.initial_weights), names)


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
    mixed = {
        name: value.lerp(initial[name].to(value.device), share) if value.is_floating_point() else value
        for name, value in trained.items()
    }
    network.load_state_dict(mixed)
    try:
        yield
    finally:
        network.load_state_dict(trained)


def state_for(
    network: nn.Module, file: Path, initial: ImageTransformationNetwork, names: Sequence[str]
) -> dict[str, Tensor]:
    """The state of an initial network, its styles arranged as a network of named styles has them.

    A style begins as the one of its name. Others begin with the mean of all, and so does a network of one style, which
    has no name. Where the number of sizes differs, all sizes begin with their mean.

    Args:
        network: The network to train.
        file: File or name of the initial network.
        initial: What it holds.
        names: The styles to train, in order; empty for a network of one style, and for super-resolution.
    """
    state = initial.state_dict()
    if isinstance(network, StyleNetwork):
        styles, wanted = state["styles"], network.styles
        if styles.shape[1] != wanted.shape[1]:
            styles = styles.mean(1, keepdim=True)
        known = dict(zip((each["name"] for each in styles_in(find_weights(file))), styles, strict=False))
        mean = styles.mean(0)
        rows = torch.stack([known.get(name, mean) for name in names] or [mean])
        state["styles"] = rows.expand_as(wanted).to(wanted.device)
    return state
