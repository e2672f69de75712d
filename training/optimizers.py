"""Optimizers: Adam as in the paper, or Muon, which needs fewer iterations for style.

Adam scales the step of every weight by itself. Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/)
treats the weights of a layer as a matrix, and orthogonalizes its step: the step is equally long in all directions that
the last gradients span, so that no few directions dominate.
"""

from typing import Any

import torch
from torch import nn
from torch.optim import Adam, Optimizer

STYLE_RATE = 5  # rate of the table of styles, relative to the learning rate: each step trains only a few styles


class ConvolutionMuon(torch.optim.Muon):
    """Muon for convolution kernels, flattened to matrices with one row per index of the first dimension.

    Its steps are as long as Adam's usually are at the same learning rate: 0.2 of it, as root mean square of a kernel.

    Args:
        kernels: Weights of convolutions, C′×C×k×k, or of transposed ones, C×C′×k×k, in any memory format.
        lr: Learning rate.
    """

    def __init__(self, kernels: list[nn.Parameter], lr: float) -> None:
        self.kernels = kernels
        self.matrices = [nn.Parameter(kernel.detach().flatten(1).clone()) for kernel in kernels]
        super().__init__(self.matrices, lr, weight_decay=0, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Updates the kernels by their gradients."""
        for matrix, kernel in zip(self.matrices, self.kernels, strict=True):
            if kernel.grad is not None:
                matrix.copy_(kernel.flatten(1))
                matrix.grad = kernel.grad.flatten(1)
        super().step()
        for matrix, kernel in zip(self.matrices, self.kernels, strict=True):
            if matrix.grad is not None:
                kernel.copy_(matrix.view_as(kernel))
                matrix.grad = None  # a view of memory that may be a CUDA graph's, which writes there again


def build_optimizers(network: nn.Module, kind: str, lr: float) -> list[Optimizer]:
    """The optimizers for a network's parameters, of the kind ``muon`` or ``adam``.

    Muon is only for layers between hidden features. Adam trains the first and the last layer, norms and biases in both
    cases. Frozen parameters are left out. If only a table of styles is trained, its rate is the learning rate.
    """
    parameters = [each for each in network.parameters() if each.requires_grad]
    inner = [each for each in parameters if kind == "muon" and each.ndim == 4 and min(each.shape[:2]) > 3]
    chosen = {id(each) for each in inner}
    others = [each for each in parameters if id(each) not in chosen]
    tables = [each for each in others if is_table(each) and len(parameters) > 1]
    groups: list[dict[str, Any]] = [{"params": [each for each in others if not any(each is one for one in tables)]}]
    if tables:
        groups.append({"params": tables, "rate": STYLE_RATE})
    adam = Adam(groups, lr, fused=parameters[0].device.type == "cuda")
    return [adam, ConvolutionMuon(inner, lr)] if inner else [adam]


def is_table(parameter: nn.Parameter) -> bool:
    """Whether a parameter is the table of several styles."""
    return parameter.ndim == 3 and parameter.shape[:2].numel() > 1
