from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from perceptual.errors import InputError, TrainingError, WeightsError
from perceptual.inference.weights import load_network
from perceptual.settings import parse
from perceptual_training.distillation import DistillationLoss
from perceptual_training.settings import StylesSettings
from perceptual_training.styles import ManyStyles, train_styles

CPU = torch.device("cpu")


@pytest.fixture
def many(tiny, paintings):
    """Settings of a training of two styles, dots and stripes."""
    return tiny(partial(parse, StylesSettings), style_dir=paintings, style_sizes=(64, 96))


@pytest.fixture
def teacher(many, tmp_path):
    """A trained network of these styles."""
    return train_styles(many(sample_path=tmp_path / "teacher", model_path=tmp_path / "teacher.safetensors"))


def test_what_the_teacher_makes_itself_has_no_loss(teacher):
    network, _ = load_network(teacher)
    photos, which = torch.rand(2, 3, 48, 40), torch.tensor([2, 1])
    backwards = DistillationLoss(teacher, ["stripes", "dots"], 2)  # in whatever order they are named
    own = network(photos, torch.stack([network.styles[0, 0], network.styles[1, 1]]))
    assert backwards(photos, which, own) == 0
    expected = (255 * (photos - own)).square().mean()
    torch.testing.assert_close(backwards(photos, which, photos), expected)


def test_a_smaller_network_comes_near_its_teacher(many, teacher):
    run = many(teacher=teacher, init_features=6, peak_weight=0, lr=1e-2, iterations=60)
    task = ManyStyles(run, CPU)
    task.network.train()
    assert [*task.losses(task.samples[:2])[0]] == ["pixels"]

    photos, styles = task.samples[:2], torch.tensor([0, 1])
    expected, _ = load_network(teacher)
    wanted = expected(photos, expected.styles[styles, 0])
    train_styles(run)
    student, metadata = load_network(run.model_path)
    before, after = (
        (each.eval()(photos, each.styles[styles, 0]) - wanted).square().mean() for each in (task.network, student)
    )
    assert after < 0.5 * before
    assert len(metadata["provenance"]["teacher"]) == 64


def test_a_run_named_as_its_teacher_goes_on(many, teacher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("perceptual.inference.metadata.shipped_weights", lambda: {"school": teacher})
    run = many(name="school", model_path=None, sample_path=tmp_path / "run", teacher="school")
    assert train_styles(replace(run, minutes=0)) is None
    assert Path("networks/school.safetensors").is_file()  # by now the network of that name
    assert train_styles(run, resume=True)


def test_another_teacher_does_not_go_on(many, teacher, tmp_path):
    other = train_styles(many(seed=1, sample_path=tmp_path / "other", model_path=tmp_path / "other.safetensors"))
    train_styles(many(teacher=teacher, iterations=3))
    with pytest.raises(TrainingError, match="made with another file as the teacher"):
        train_styles(many(teacher=other), resume=True)
    with pytest.raises(TrainingError, match="made with another file as the teacher"):  # or without one
        train_styles(many(), resume=True)


@pytest.mark.parametrize(
    ("names", "sizes", "message"),
    [
        (["dots", "circles"], 2, "teacher: .* has no style circles, which is among the paintings"),
        (["dots"], 1, "style-sizes: expected 2, as the teacher has; got 1"),
    ],
)
def test_a_teacher_of_other_styles(teacher, names, sizes, message):
    with pytest.raises(InputError, match=message):
        DistillationLoss(teacher, names, sizes)


def test_a_style_loss_that_a_teacher_replaces_has_no_factors(many, tmp_path):
    with pytest.raises(InputError, match="style-factors: with --teacher there is no style loss"):
        train_styles(many(teacher=tmp_path / "teacher.safetensors", style_factors=("dots=2",)))


def test_a_teacher_that_does_not_exist(many, tmp_path):
    with pytest.raises(WeightsError, match=r"none\.safetensors"):
        train_styles(many(teacher=tmp_path / "none.safetensors"))
