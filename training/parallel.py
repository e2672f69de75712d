"""Trains one network on several GPUs or machines: ``torchrun`` starts processes, each with a part of every batch.

All processes draw the same random numbers and have the same weights; the result is that of one process up to rounding.
So numbers for single photos are drawn for the whole batch, of which each process uses its :func:`part`. Only rank 0
writes files. Every function here also works in a training of one process.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from perceptual.errors import InvalidOption

Losses = Callable[[Tensor], tuple[dict[str, Tensor], Tensor]]
Batch = TypeVar("Batch", Tensor, list[Any], range)


def join(device: torch.device, batch_size: int) -> torch.device:
    """Joins the other processes, if ``torchrun`` started this one; returns its own device.

    Raises:
        InvalidOption: The processes cannot share a batch evenly.
    """
    if not dist.is_torchelastic_launched():
        return device
    processes = int(os.environ["WORLD_SIZE"])
    if batch_size % processes:
        raise InvalidOption(f"batch-size: expected a multiple of the {processes} processes, got {batch_size}")
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group()  # NCCL for tensors on GPUs, Gloo for those on CPUs
    return device


def leave() -> None:
    """Leaves the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Rank of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def part(batch: Batch) -> Batch:
    """This process's part of what a whole batch has, in order: of its photos, or of numbers for each of them."""
    share = len(batch) // world_size()
    return batch[rank() * share : (rank() + 1) * share]


class Step(nn.Module):
    """A network's losses as the forward pass of a module, as DistributedDataParallel requires."""

    def __init__(self, network: nn.Module, losses: Losses) -> None:
        super().__init__()
        self.network = network
        self.losses = losses

    def forward(self, photos: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The losses of this process's photos."""
        return self.losses(photos)


def synchronized(network: nn.Module, losses: Losses) -> Losses:
    """The losses, with gradients averaged over all processes in the backward pass.

    Raises:
        InvalidOption: The network normalizes over all photos of a batch, and each process has only a part of them.
    """
    if world_size() == 1:
        return losses
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
        raise InvalidOption("preset: paper normalizes over the whole batch: train it without torchrun")
    return DistributedDataParallel(Step(network, losses))


def mean(values: Tensor) -> Tensor:
    """The mean over all processes."""
    return total(values) / world_size()


def total(values: Tensor) -> Tensor:
    """The sum over all processes."""
    values = values.detach().clone()
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    return bool(total(torch.tensor(int(flag))))


def union(items: set[Any]) -> set[Any]:
    """The items of all processes."""
    if world_size() == 1:
        return items
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, items)
    return set().union(*gathered)
