from functools import partial

import pytest
import torch

from perceptual.inference.grain import STRONGEST, with_grain
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.weights import load_network
from perceptual.settings import parse
from perceptual_training import parallel
from perceptual_training.grain import randomly_grained
from perceptual_training.learning import COMPARED, MIDDLE, Learning, learn_style, learning_settings
from perceptual_training.settings import StyleSettings, StylesSettings
from perceptual_training.style import StyleTransfer, train_style
from perceptual_training.styles import ManyStyles, train_styles

CPU = torch.device("cpu")


@pytest.fixture
def one(tiny, paintings):
    """Settings of a training of one style with grain."""
    return tiny(partial(parse, StyleSettings), style_image=paintings / "dots.png", style_size=64, grain=0.5)


@pytest.fixture
def many(tiny, paintings):
    """Settings of a training of many styles with grain."""
    return tiny(partial(parse, StylesSettings), style_dir=paintings, style_sizes=(64,), grain=0.5)


def test_strengths_are_uniform_up_to_twice_the_mean():
    torch.manual_seed(0)
    photos = torch.full((200, 3, 48, 48), 0.5)
    grain = (randomly_grained(photos, 0.5) - photos) * 255 / STRONGEST
    strengths = grain.std(dim=(1, 2, 3))
    assert strengths.min() < 0.1 and 0.85 < strengths.max() < 1.3
    assert 0.43 < strengths.mean() < 0.57
    assert grain.mean().abs() < 0.05


def test_processes_draw_parts_of_one_batch(monkeypatch):
    photos = torch.full((4, 3, 40, 40), 0.5)
    torch.manual_seed(1)
    whole = randomly_grained(photos, 0.5)
    monkeypatch.setattr(parallel, "world_size", lambda: 2)
    monkeypatch.setattr(parallel, "rank", lambda: 1)
    torch.manual_seed(1)
    assert torch.equal(randomly_grained(photos[2:], 0.5), whole[2:])


def test_without_grain_nothing_is_drawn():
    photos, before = torch.rand(1, 3, 8, 8), torch.get_rng_state()
    assert randomly_grained(photos, 0.0) is photos
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("kind", "fixture"), [(StyleTransfer, "one"), (ManyStyles, "many")])
def test_content_is_compared_with_the_photo_without_grain(kind, fixture, request, monkeypatch):
    settings = request.getfixturevalue(fixture)
    task = kind(settings(), CPU)
    monkeypatch.setattr(task, "run", lambda photos, **_: photos)
    assert task.losses(task.samples[:2])[0]["content"] > 0  # what comes out is the photo with grain
    task.network.grain = 0.0
    assert task.losses(task.samples[:2])[0]["content"] == 0


@pytest.mark.parametrize(("train", "fixture"), [(train_style, "one"), (train_styles, "many")])
def test_a_network_keeps_the_grain_of_its_training(train, fixture, request):
    assert load_network(train(request.getfixturevalue(fixture)()))[0].grain == 0.5


def test_a_training_may_add_grain_to_a_network_without(many, tmp_path):
    plain = train_styles(many(grain=0.0, model_path=tmp_path / "plain.safetensors", sample_path=tmp_path / "plain"))
    network, _ = load_network(train_styles(many(initial_weights=plain)))
    assert network.grain == 0.5


def test_samples_have_grain_as_pictures_do(many):
    task = ManyStyles(many(), CPU)
    task.network.eval()
    with torch.no_grad():
        expected = task.network(with_grain(task.samples[:1], [0.5]), task.network.styles[0])
    assert torch.equal(task.stylized(task.samples[:1], 0), expected)


def test_a_painting_is_learned_with_the_grain_of_the_trunk(many, tiny, paintings, tmp_path):
    trunk = train_styles(many())
    decided = dict.fromkeys(("init_features", "num_residuals"))  # by the trunk
    files = {"model_path": trunk.with_name("mine.safetensors"), "sample_path": tmp_path / "mine"}
    file = learn_style(tiny(learning_settings, **decided, **files, trunk=trunk, style_image=paintings / "dots.png")())
    assert load_network(file)[0].grain == 0.5


def test_the_nearest_style_is_found_by_pictures_with_grain(many, tiny, paintings, tmp_path, monkeypatch):
    trunk, seen = train_styles(many()), []
    forward = StyleNetwork.forward

    def watched(self, images, *style, **options):
        seen.append(images)
        return forward(self, images, *style, **options)

    monkeypatch.setattr(StyleNetwork, "forward", watched)
    decided = dict.fromkeys(("init_features", "num_residuals"))  # by the trunk
    files = {"model_path": trunk.with_name("mine.safetensors"), "sample_path": tmp_path / "mine"}
    settings = tiny(learning_settings, **decided, **files, trunk=trunk, style_image=paintings / "dots.png")()
    task = Learning(settings, CPU)
    photos = task.samples[:COMPARED, :, MIDDLE, MIDDLE]
    assert torch.equal(seen[0], with_grain(photos, [0.5] * len(photos)))
