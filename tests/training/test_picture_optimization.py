import os
import signal
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from perceptual.errors import TrainingError
from perceptual.settings import parse
from perceptual_training import picture_optimization
from perceptual_training.picture_optimization import Optimization, Step, optimize
from perceptual_training.settings import OptimizationSettings


@pytest.fixture
def settings(painting, loss_weights):
    """Settings of an optimization of ten iterations, with what a test changes of them."""

    def make(**changes):
        values = {
            "style-image": painting,
            "style-size": 32,
            "loss-weights": loss_weights,
            "iterations": 10,
            "max-size": 32,
            "device": "cpu",
            "reg-weight": 100,
        }
        return parse(OptimizationSettings, values | {name.replace("_", "-"): value for name, value in changes.items()})

    return make


@pytest.fixture
def file(photos):
    return photos / "a" / "001.png"


def quadratic(centre, curvature):
    return lambda image: {"one": (curvature * (image - centre).square()).sum(), "two": 0 * image.sum()}


def test_a_quadratic_is_minimized_within_the_bounds():
    torch.manual_seed(0)
    centre, curvature = 3 * torch.rand(1, 3, 8, 8) - 1, 1 + 9 * torch.rand(1, 3, 8, 8)  # two thirds lie outside
    *_, last = optimize(quadratic(centre, curvature), torch.full((1, 3, 8, 8), 0.5), 60)
    torch.testing.assert_close(last.image, centre.clamp(0, 1), atol=1e-3, rtol=0)
    assert last.iteration == 60 and last.losses["two"] == 0


def test_steps_are_the_beginning_and_every_iteration_with_their_own_losses(settings, file):
    task = Optimization(settings(), file)
    steps = list(task.steps())
    assert [step.iteration for step in steps] == list(range(11))
    photo = task.photo.rgb[None].float() / 255
    assert torch.equal(steps[0].image, photo) and steps[0].losses["content"] == 0
    for step in steps:
        losses = task.objective(step.image, task.objective.targets(photo))
        assert step.losses == pytest.approx({name: value.item() for name, value in losses.items()}, rel=1e-4)
        assert step.image.min() >= 0 and step.image.max() <= 1
    totals = [step.total for step in steps]
    assert all(after < 1.02 * before for before, after in pairwise(totals))
    assert totals[-1] < 0.5 * totals[0]


def test_it_does_as_well_as_scipy_s_bounded_optimizer(settings, file):
    """L-BFGS-B (Byrd et al. 1995) minimizes the same losses within the same bounds by another way."""
    from scipy.optimize import minimize

    task = Optimization(settings(iterations=60), file)
    photo = task.photo.rgb[None].float() / 255
    targets = task.objective.targets(photo)

    def loss_and_gradient(pixels):
        image = torch.tensor(pixels, dtype=torch.float32).view_as(photo).requires_grad_()
        total = sum(task.objective(image, targets).values())
        total.backward()
        return total.item(), image.grad.double().flatten().numpy()

    result = minimize(
        loss_and_gradient, photo.flatten().double(), jac=True, method="L-BFGS-B", bounds=[(0, 1)] * photo.numel(),
        options={"maxfun": 60},
    )  # fmt: skip
    *_, last = task.steps()
    assert last.total < 1.1 * result.fun


def test_nothing_to_improve_changes_nothing(settings, file):
    steps = list(Optimization(settings(style_weights=[0], reg_weight=0), file).steps())
    assert len(steps) == 11 and all(torch.equal(step.image, steps[0].image) and step.total == 0 for step in steps)


def test_noise_is_another_beginning_and_reproducible(settings, file):
    first, second, other = (next(Optimization(settings(start="noise", seed=s), file).steps()) for s in (0, 0, 1))
    assert torch.equal(first.image, second.image) and not torch.equal(first.image, other.image)
    assert first.losses["content"] > 0


def test_losses_that_are_not_finite_end_it():
    calls = []

    def exploding(image):
        calls.append(1)
        return {"content": (image * (float("nan") if len(calls) > 3 else 1)).square().sum()}

    steps = optimize(exploding, torch.rand(1, 3, 8, 8), 10)
    assert len(list(islice(steps, 3))) == 3
    with pytest.raises(TrainingError, match="no longer finite after 3 iterations; lower the weights"):
        next(steps)


@pytest.fixture
def command(painting, loss_weights, tmp_path):
    return (
        *("--style-image", painting, "--style-size", 32, "--loss-weights", loss_weights, "--device", "cpu"),
        *("-o", tmp_path / "out.png"),
    )


def test_command(run, command, file, tmp_path):
    status, out, err = run("optimize", file, *command, "--iterations", 5, "--max-size", 40)
    assert (status, err) == (0, "") and "out.png, after 5 of 5 iterations; the picture is from iteration " in out
    with Image.open(tmp_path / "out.png") as result:
        assert result.size == (40, 32)


def test_the_picture_keeps_the_photo_s_density_and_dates(run, command, file, tmp_path):
    block = Image.Exif()
    block[0x0132] = "2024:05:06 07:08:09"
    with Image.open(file) as photo:
        photo.convert("RGB").save(tmp_path / "dated.jpg", dpi=(300, 300), exif=block)
    assert run("optimize", tmp_path / "dated.jpg", *command, "--iterations", 1)[0] == 0
    with Image.open(tmp_path / "out.png") as result:
        assert result.info["dpi"] == pytest.approx((300, 300), abs=0.02) and dict(result.getexif()) == dict(block)


def test_the_best_picture_is_written_not_the_last(run, command, file, tmp_path, monkeypatch):
    def worse_and_worse(losses, start, iterations):
        return (Step(done, start * (1 - done / 8), {"sum": float(done)}) for done in range(iterations + 1))

    monkeypatch.setattr(picture_optimization, "optimize", worse_and_worse)
    status, out, _ = run("optimize", file, *command, "--iterations", 5)
    assert status == 0 and "the picture is from iteration 0, with a loss of 0" in out
    with Image.open(tmp_path / "out.png") as result, Image.open(file) as photo:
        assert result.tobytes() == photo.convert("RGB").tobytes()


def test_the_painting_is_not_overwritten(run, command, file, painting):
    content = painting.read_bytes()
    status, _, err = run("optimize", file, *command, "-o", painting)
    assert status == 1 and "would overwrite the painting" in err and painting.read_bytes() == content


@pytest.mark.parametrize("event", ["signal", "error"])
def test_the_picture_so_far_is_kept(run, command, file, tmp_path, monkeypatch, event):
    original = picture_optimization.optimize

    def interrupted(*arguments):
        for step in original(*arguments):
            if step.iteration == 3 and event == "error":
                raise TrainingError("the losses are no longer finite")
            if step.iteration == 3:
                os.kill(os.getpid(), signal.SIGINT)
            yield step

    monkeypatch.setattr(picture_optimization, "optimize", interrupted)
    status, out, err = run("optimize", file, *command)
    if event == "signal":
        assert status == 130 and "after 3 of 500 iterations" in out
    else:
        assert (status, err) == (1, "perceptual: the losses are no longer finite\n")
    with Image.open(tmp_path / "out.png") as result, Image.open(file) as photo:
        assert result.size == photo.size and not np.array_equal(np.asarray(result), np.asarray(photo))


def test_bad_input_is_one_line(run, command, file, photos, tmp_path):
    Image.new("RGB", (300, 10)).save(tmp_path / "thin.png")
    for photo, arguments, message in [
        (photos, (), f"{photos} is a folder; name one photo"),
        (tmp_path / "missing.png", (), "cannot read"),
        (tmp_path / "thin.png", (), "300×10 pixels are too few; 16 a side are needed"),
        (file, ("--style-image", tmp_path / "none.jpg"), "cannot read"),
        (file, ("-o", tmp_path / "out.bmp"), "the name of the result must end in"),
        (file, ("--style-weights", 1, 2), "style-weights: expected 1 or 4 numbers"),
    ]:
        status, out, err = run("optimize", photo, *command, *arguments)
        assert (status, out) == (1, "") and message in err and err.count("\n") == 1
    assert run("optimize", file, *command, "--iterations", 0)[0] == 2
    assert not (tmp_path / "out.png").exists()
