"""A training step, compiled.

A step is some hundred small operations forward and as many backward. Compiled, neighbouring ones become one, which
saves moving bytes. A fast GPU also waits for Python to start them all: there they are replayed as a CUDA graph, which
needs the same shapes every time.
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
    """A step compiled for photos of one shape; or as it is, if that fails.

    Tried on an example, backwards too, as only then all is compiled. That leaves nothing behind in the network.

    Args:
        losses: The step.
        network: Whose gradients it makes.
        example: Photos N×3×H×W in [0, 1].
        precision: In which the step is run.
        note: Is told why there is no compiled step.
    """
    quick = torch.compile(losses, mode="reduce-overhead", dynamic=False)
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        with torch.random.fork_rng():
            for _ in range(TRIALS):
                network.zero_grad(set_to_none=True)  # as a training does: CUDA graphs own the gradients they make
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
