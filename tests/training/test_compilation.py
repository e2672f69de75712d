import re
from contextlib import nullcontext

import pytest
import torch

from perceptual_training import grids, style
from perceptual_training.compilation import compiled
from perceptual_training.style import StyleTransfer, train_style


def test_a_compiled_step_is_the_same_step(settings, compiler, monkeypatch):
    for module, constant, value in ((style, "POOLED", 1), (style, "STRIDE", 0), (style, "NOISE", 0)):
        monkeypatch.setattr(module, constant, value)  # nothing at random
    monkeypatch.setattr(grids, "plain", lambda photos: photos)
    monkeypatch.setattr(grids, "NOISE", 0)
    task = task_of(settings(peak_weight=1e3, steadiness_weight=10, grid_weight=1e3))
    photos, state = torch.rand(2, 3, 32, 32), copied(task.network)
    quick = compiled(task.losses, task.network, photos, nullcontext, pytest.fail)
    assert quick is not task.losses
    expected, found = (outcome(step, task.network, photos, state) for step in (task.losses, quick))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_training_on_a_gpu_is_compiled(settings):
    wishes = settings(device="cuda", iterations=200, log_step=50)
    assert train_style(wishes).exists()
    log = (wishes.sample_path / "train.log").read_text()
    assert "compiling the step" in log and "fails" not in log
    totals = [float(each) for each in re.findall(r"total ([\d.e+]+) ", log)]
    assert len(totals) == 4 and totals[-1] < totals[0] / 2


def test_compiling_leaves_nothing_behind(settings, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, mode, dynamic: function)
    task = task_of(settings(preset="paper"))  # its batch norms keep statistics
    photos, state = torch.rand(2, 3, 32, 32), copied(task.network)
    random = torch.get_rng_state()
    compiled(task.losses, task.network, photos, nullcontext, pytest.fail)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(each, state[name]) for name, each in task.network.state_dict().items())
    assert all(each.grad is None for each in task.network.parameters())


def task_of(wishes):
    task = StyleTransfer(wishes, torch.device("cpu"))
    task.network.train()
    return task


def copied(network):
    return {name: each.clone() for name, each in network.state_dict().items()}


def outcome(step, network, photos, state):
    """Losses, output and gradients of a step from a state."""
    network.load_state_dict(state)
    network.zero_grad()
    losses, output = step(photos)
    torch.stack(list(losses.values())).sum().backward()
    gradients = torch.cat([each.grad.flatten() for each in network.parameters()])
    return [*(each.detach().log() for each in losses.values()), output.detach(), gradients / gradients.norm()]


def test_a_training_goes_on_without_if_compiling_fails(settings, monkeypatch):
    def fails(function, mode, dynamic):
        def run(photos):
            raise RuntimeError("no C++ compiler\nand more")

        return run

    monkeypatch.setattr(torch, "compile", fails)
    wishes = settings(compile="yes")
    assert train_style(wishes).exists()
    log = (wishes.sample_path / "train.log").read_text()
    assert "torch.compile fails; training continues without it: no C++ compiler\n" in log
