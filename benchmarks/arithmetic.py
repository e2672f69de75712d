"""Arithmetic and memory traffic that networks need, and the rates of both that this machine reaches."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count

from .timing import alternate

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
COPYING = "copying"
LARGE = ((64, 256), (128, 128), (256, 128), (512, 64))  # channels in and out, and side, of 3×3 convolutions
GPU_BATCH = 32  # one image would leave most of a GPU idle
COPIED = 2**28  # bytes; more than any cache holds
REPEATS = 5


class Work(NamedTuple):
    """The work of a convolution: its operations, and the numbers that it reads and writes."""

    flops: int
    numbers: int


class Works(TorchDispatchMode):
    """Records the work of every convolution that runs within it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Work] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation, and records its work if it is a convolution."""
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            x, weight, transposed = args[0], args[1], args[6]
            flops = conv_flop_count(x.shape, weight.shape, result.shape, transposed=transposed)
            self.found.append(Work(flops, x.numel() + weight.numel() + result.numel()))
        return result


def works(network: nn.Module, shape: Sequence[int]) -> list[Work]:
    """The work of a network's convolutions for a batch of images, layer by layer as the network is defined.

    An engine may need fewer operations: these include the convolution of a resize-convolution's weights and pixels that
    are cropped, together 1 % for the default style network at 256².
    """
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), Works() as noted:
        network(torch.empty(*shape))  # a tensor of this size without content: nothing is computed
    return noted.found


def count_flops(network: nn.Module, shape: Sequence[int]) -> int:
    """Floating-point operations of the convolutions for a batch; a multiplication and an addition are two."""
    return sum(work.flops for work in works(network, shape))


def floor(work: Sequence[Work], limits: Mapping[str, float], precision: str) -> tuple[float, float]:
    """Minimum seconds for convolutions, one after the other, and the share in which memory traffic is the limit.

    Each convolution takes the longer of two times: computing at the best rate, or reading its input and weights once
    and writing its output once. Other operations are assumed to be fused with convolutions, and caches are not
    considered.

    Args:
        work: Of the convolutions.
        limits: From :func:`ceilings`.
        precision: ``float32`` or ``bfloat16``.
    """
    size = PRECISIONS[precision].itemsize
    computing = [each.flops / limits[precision] / 1e9 for each in work]
    moving = [each.numbers * size / limits[COPYING] / 1e9 for each in work]
    total = sum(map(max, computing, moving))
    return total, sum(m for c, m in zip(computing, moving, strict=True) if m > c) / total


@torch.no_grad()
def ceilings(device: torch.device) -> dict[str, float]:
    """The highest GFLOP/s of large convolutions in PyTorch, by precision, and GB/s of a copy, read plus written."""
    return {name: max(rates(device, dtype)) for name, dtype in PRECISIONS.items()} | {COPYING: bandwidth(device)}


def rates(device: torch.device, dtype: torch.dtype) -> list[float]:
    """GFLOP/s of every large convolution, at best."""
    found = []
    for channels, side in LARGE:
        shape = (GPU_BATCH if device.type == "cuda" else 1, channels, side, side)
        layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        flops = count_flops(layer, shape)
        layer = layer.to(device, dtype).to(memory_format=torch.channels_last)
        x = torch.rand(shape, device=device).to(dtype, memory_format=torch.channels_last)
        (seconds,) = alternate({"": partial(layer, x)}, REPEATS, device).values()
        found.append(flops / min(seconds) / 1e9)
    return found


def bandwidth(device: torch.device) -> float:
    """GB/s that a large copy reads and writes, at best."""
    source: Tensor = torch.zeros(COPIED, dtype=torch.uint8, device=device)
    (seconds,) = alternate({"": partial(torch.empty_like(source).copy_, source)}, REPEATS, device).values()
    return 2 * COPIED / min(seconds) / 1e9
