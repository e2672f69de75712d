"""The optimizers, against singular value decompositions in float64."""

import pytest
import torch
from torch import nn

from perceptual.inference.networks import StyleNetwork, SuperResolutionNetwork
from perceptual_training.optimizers import ConvolutionMuon, build_optimizers


@pytest.mark.parametrize("shape", [(8, 6, 3, 3), (64, 4, 3, 3)])
def test_muon_steps_equally_far_in_all_directions_of_the_gradient(shape):
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(shape))
    before = kernel.detach().double().flatten(1)
    kernel.grad = torch.randn(shape) * torch.logspace(0, -3, shape[0]).view(-1, 1, 1, 1)  # a few outweigh the rest
    ConvolutionMuon([kernel], lr=0.01).step()
    step = (before - kernel.detach().double().flatten(1)) / (0.01 * 0.2 * max(before.shape) ** 0.5)
    u, s, vh = torch.linalg.svd(kernel.grad.double().flatten(1), full_matrices=False)
    along = u.T @ step @ vh.T
    far = s > 0.02 * s[0]  # five iterations do not lift what is next to nothing
    assert far.sum() > 2 and s[0] / s[far][-1] > 10
    assert along.diagonal()[far].min() > 0.6 and along.diagonal().max() < 1.25
    assert (along - along.diagonal().diag()).abs().max() < 0.1
    rms = (before - kernel.detach().double().flatten(1)).square().mean().sqrt()
    assert 0.0005 < rms < 0.003  # about Adam's usual step, hence the 0.2


def test_muon_s_step_is_the_same_in_any_memory_format():
    torch.manual_seed(0)
    one = nn.Parameter(torch.randn(8, 4, 3, 3))
    two = nn.Parameter(one.detach().clone(memory_format=torch.channels_last))
    gradient = torch.randn(one.shape)
    for kernel in (one, two):
        optimizer = ConvolutionMuon([kernel], lr=0.1)
        for factor in (1, -2):
            kernel.grad = (factor * gradient).contiguous(memory_format=torch.channels_last)
            optimizer.step()
    assert two.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 6, 3, 3), (64, 4, 3, 3)])
def test_muon_s_steps_are_those_of_torch(shape):
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(shape))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    ours = ConvolutionMuon([kernel], lr=0.1)
    theirs = torch.optim.Muon([matrix], lr=0.1, weight_decay=0, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        kernel.grad = torch.randn(shape)
        matrix.grad = kernel.grad.flatten(1)
        before = kernel.detach().flatten(1).clone()
        ours.step()
        theirs.step()
    step = kernel.detach().flatten(1) - before
    assert (kernel.detach().flatten(1) - matrix).abs().max() < 0.1 * step.abs().max()  # theirs are in bfloat16
    held, wanted = ours.state[kernel]["momentum_buffer"], theirs.state[matrix]["momentum_buffer"]
    torch.testing.assert_close(held, wanted)


@pytest.mark.parametrize("network", [StyleNetwork(init_features=4), SuperResolutionNetwork(scale=4, init_features=8)])
def test_every_parameter_has_one_optimizer_and_colours_have_adam(network):
    adam, muon = build_optimizers(network, "muon", 1e-3)
    adams = {id(each) for group in adam.param_groups for each in group["params"]}
    muons = {id(each) for group in muon.param_groups for each in group["params"]}
    assert not adams & muons and adams | muons == {id(each) for each in network.parameters()}
    convolutions = [each for each in network.modules() if isinstance(each, nn.Conv2d)]
    assert [id(each.weight) in muons for each in convolutions] == [False, *[True] * (len(convolutions) - 2), False]
    (alone,) = build_optimizers(network, "adam", 1e-3)
    assert len(alone.param_groups[0]["params"]) == len(list(network.parameters()))
