"""Compiles the training step.

A step consists of some hundred small operations forward and as many backward. The compiler fuses neighbouring ones,
which reduces memory traffic. A fast GPU also waits for Python to start each operation: on GPUs they are replayed as a
CUDA graph, which requires constant shapes.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from perceptual.errors import first_line

from .parallel import Losses

TRIALS = 3  # after which CUDA graphs are recorded


def compiled(
    losses: Losses,
    network: nn.Module,
    example: Tensor,
    precision: Callable[[], AbstractContextManager[None]],
    note: Callable[[str], None],
) -> Losses:
    """The step compiled for photos of one shape; the step itself if compilation fails.

    Compilation is triggered by running an example forward and backward; the network's state is left unchanged.

    Args:
        losses: The step.
        network: The network whose gradients it computes.
        example: Photos N×3×H×W in [0, 1].
        precision: Autocast context of the step.
        note: Called with the reason if compilation fails.
    """
    quick = torch.compile(losses, mode="reduce-overhead", dynamic=False)
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        with torch.random.fork_rng():
            for _ in range(TRIALS):
                network.zero_grad(set_to_none=True)  # as in a training: CUDA graphs own the gradients they compute
                with precision():
                    terms, _ = quick(example)
                torch.stack(list(terms.values())).sum().backward()
    except Exception as error:
        note(f"torch.compile fails; training continues without it: {first_line(error)}")
        return losses
    finally:
        network.zero_grad(set_to_none=True)
        for name, buffer in network.named_buffers():
            buffer.copy_(buffers[name])
    return quick
