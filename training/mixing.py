"""The weights that a training writes: as trained, or with a share of those it began with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from perceptual.weights import load_network

from .settings import TrainingSettings


@contextmanager
def mixed_with_initial(network: nn.Module, settings: TrainingSettings) -> Iterator[None]:
    """Gives a network, as long as it lasts, the weights to be written: with ``initial_share`` of those it began with.

    The straight line between two networks of one origin leads through networks that are as good: network
    interpolation, section 3.4 of Wang et al. 2018 (https://arxiv.org/abs/1809.00219).
    """
    if not settings.initial_weights or not settings.initial_share:
        yield
        return
    trained = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.random.fork_rng(devices=[]):  # a network draws random weights before it is given others
        initial = load_network(settings.initial_weights)[0].state_dict()
    mixed = {
        name: value.lerp(initial[name].to(value.device), settings.initial_share) if value.is_floating_point() else value
        for name, value in trained.items()
    }
    network.load_state_dict(mixed)
    try:
        yield
    finally:
        network.load_state_dict(trained)
