"""Optimizers: Adam as in the paper, or Muon, which needs fewer iterations for style.

Adam scales the step of each weight separately. Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/)
treats the weights of a layer as a matrix, and orthogonalizes its step: the step then has the same length in all
directions that the last gradients span, instead of being dominated by a few.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

STYLE_RATE = 5  # rate of the table of styles, relative to the learning rate: each step trains only a few styles
MOMENTUM = 0.95
NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315  # coefficients of the iteration, from the author of Muon


class ConvolutionMuon(Optimizer):
    """Muon for the kernels of convolutions, as matrices with a row for each of the first dimension.

    Like :class:`torch.optim.Muon`, which accepts only matrices and multiplies them in bfloat16; on a processor without
    instructions for bfloat16, that took a quarter of the training time. The root mean square of a kernel's step is 0.2
    times the learning rate, as usual with Adam.

    Args:
        kernels: Weights of convolutions, C′×C×k×k, or of transposed ones, C×C′×k×k, in any memory format.
        lr: Learning rate.
    """

    def __init__(self, kernels: list[nn.Parameter], lr: float) -> None:
        super().__init__(kernels, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Updates the kernels by one step."""
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.grad is not None:
                    gradient, state = kernel.grad.flatten(1), self.state[kernel]
                    mean = state.setdefault("momentum_buffer", torch.zeros_like(gradient))
                    mean.lerp_(gradient, 1 - MOMENTUM)
                    step = orthogonal(gradient.lerp(mean, MOMENTUM))  # Nesterov's momentum
                    kernel.sub_(step.view_as(kernel), alpha=group["lr"] * 0.2 * math.sqrt(max(step.shape)))


def orthogonal(matrix: Tensor) -> Tensor:
    """About UVᵀ for a matrix USVᵀ, by five Newton-Schulz iterations: singular values of 0.7 to 1.2."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.mT if tall else matrix).to(torch.bfloat16 if matrix.is_cuda else matrix.dtype)
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrix.dtype)


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
