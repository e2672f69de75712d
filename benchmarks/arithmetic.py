"""How much arithmetic networks take, and how much of it this machine can do."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from .timing import alternate

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LARGE = ((64, 256), (128, 128), (256, 128), (512, 64))  # channels in and out, and side, of 3×3 convolutions
GPU_BATCH = 32  # one image would leave most of a GPU idle
REPEATS = 5


def count_flops(network: nn.Module, shape: Sequence[int]) -> int:
    """Floating-point operations for a batch of images: of the convolutions, a multiplication and an addition are two.

    They are counted layer by layer as the network is defined; an engine may get by with fewer.
    """
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter:
        network(torch.empty(*shape))  # a tensor of this size without content: nothing is computed
    return counter.get_total_flops()


@torch.inference_mode()
def ceilings(device: torch.device) -> dict[str, float]:
    """The most GFLOP/s that large convolutions reach in PyTorch, by precision."""
    return {name: max(rates(device, dtype)) for name, dtype in PRECISIONS.items()}


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
