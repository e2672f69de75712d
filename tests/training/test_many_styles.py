import shlex
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

import perceptual
from perceptual.errors import InputError, TrainingError
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.weights import load_network
from perceptual.settings import parse
from perceptual_training import parallel, styles
from perceptual_training.mixing import initial_weights
from perceptual_training.paintings import find_paintings
from perceptual_training.settings import StylesSettings
from perceptual_training.styles import ManyStyles, numbers_by_name, train_styles
from perceptual_training.task import build_network

CPU = torch.device("cpu")


@pytest.fixture
def many(tiny, paintings):
    """Settings of a training of many styles."""
    return tiny(partial(parse, StylesSettings), style_dir=paintings, style_sizes=(64, 96))


def test_a_run_leaves_one_network_of_all_styles(many, small_samples):
    weights = train_styles(many())
    network, metadata = load_network(weights)
    assert network.styles.shape == (2, 2, network.style_numbers)
    assert not torch.equal(network.styles[0], network.styles[1])
    told = metadata["provenance"]["styles"]
    assert [each["name"] for each in told] == ["dots", "stripes"]
    assert told[0]["title"] == "Dots" and len(told[1]["style_image_sha256"]) == 64
    photo = Image.effect_noise((50, 40), 80).convert("RGB")
    assert perceptual.load(weights, "cpu").stylize(photo, style={"dots": 1, "stripes": 1}, stroke=0.5).size == (50, 40)
    with Image.open(many().sample_path / "samples.png") as sheet:
        assert sheet.width == 12 * (small_samples + 4) + 4


def test_what_the_command_prints_can_be_typed(run, many, photos, paintings, loss_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--loss-weights", loss_weights, "--init-features", 4, "--num-residuals", 1, "--image-size", 32)
    data = ("--style-dir", paintings, "--content-dir", photos, "--batch-size", 2, "--iterations", 2, "--device", "cpu")
    status, out, _ = run("train", "styles", *data, *options, "--model-path", tmp_path / "my models/two.safetensors")
    assert status == 0
    perceptual, *arguments = shlex.split(out.partition("Try it: ")[2])
    photo = next(photos.rglob("*.png"))
    assert perceptual == "perceptual" and run(*(photo if each == "PHOTO" else each for each in arguments))[0] == 0
    assert (tmp_path / "stylized.jpg").is_file()


def test_all_paintings_weigh_the_same(many):
    task = ManyStyles(many(style_weights=1), CPU)
    torch.manual_seed(0)
    photos = torch.stack([task.samples[0], task.samples[1]])
    features = task.objective.features(photos)
    own = torch.stack(
        [
            task.objective.style_loss.of_each(features, torch.full((2,), row)).mean() * task.factors[row]
            for row in range(4)
        ]
    )
    assert own.max() < 4 * own.min() and 2e5 < own.mean() < 5e6  # 1e6 for the crops it was measured on
    torch.testing.assert_close(ManyStyles(many(style_weights=7), CPU).factors, task.factors)  # that weight adds to it
    doubled = ManyStyles(many(style_factors=("dots=2",)), CPU)
    torch.testing.assert_close(doubled.factors, task.factors * torch.tensor([2.0, 2.0, 1.0, 1.0]))


def test_all_processes_give_the_paintings_the_same_weight(many, monkeypatch):
    alone = ManyStyles(many(), CPU).factors
    monkeypatch.setattr(parallel, "world_size", lambda: 8)
    monkeypatch.setattr(parallel, "rank", lambda: 5)
    assert torch.equal(ManyStyles(many(batch_size=8), CPU).factors, alone)


@pytest.mark.parametrize(
    ("option", "names"), [("steadiness_weight", ["steadiness"]), ("grid_weight", ["grids", "weave"])]
)
def test_what_needs_further_pictures_is_a_loss_of_its_own_and_leaves_the_others(many, option, names):
    without, task_with = (ManyStyles(many(**{option: weight}), CPU) for weight in (0.0, 3.0))
    task_with.network.load_state_dict(without.network.state_dict())
    losses = []
    for task in (without, task_with):
        task.network.train()
        torch.manual_seed(0)
        losses.append(task.losses(task.samples[:2])[0])
        assert not task.peaks.measured  # the further pictures do not count
    assert all(losses[1].pop(name) > 0 for name in names)
    torch.testing.assert_close(losses[1], losses[0])


def test_resuming_is_exact(many, tmp_path):
    straight = many(sample_path=tmp_path / "straight", model_path=tmp_path / "straight.safetensors")
    train_styles(straight)
    halves = {"sample_path": tmp_path / "halves", "model_path": tmp_path / "halves.safetensors"}
    train_styles(many(**halves, iterations=3))
    (tmp_path / "halves.safetensors").unlink()
    torch.manual_seed(99)
    train_styles(many(**halves), resume=True)
    one, two = (load_network(tmp_path / f"{name}.safetensors")[0].state_dict() for name in ("straight", "halves"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_other_paintings_do_not_go_on(many, paintings):
    train_styles(many(iterations=3))
    Image.effect_noise((90, 80), 80).convert("RGB").save(paintings / "dots.png")
    with pytest.raises(TrainingError, match="made with another file as the paintings"):
        train_styles(many(), resume=True)


def test_begins_with_a_network_of_one_style(many, weights):
    task = ManyStyles(many(initial_weights=weights), CPU)
    initial, _ = load_network(weights)
    assert torch.equal(task.network.styles, initial.styles.expand(2, 2, -1))
    assert torch.equal(task.network.blocks[0].body[0].weight, initial.blocks[0].body[0].weight)


def test_a_network_of_one_style_begins_with_the_mean_of_many(many, tmp_path):
    first = train_styles(many(style_sizes=(64, 96)))
    network = build_network(StyleNetwork, many(initial_weights=first), styles=1, sizes=1)
    initial = load_network(first)[0].state_dict()
    assert torch.equal(network.styles, initial["styles"].mean((0, 1), keepdim=True))
    assert torch.equal(network.blocks[0].body[0].weight, initial["blocks.0.body.0.weight"])


def test_styles_begin_as_those_of_their_names(many, paintings):
    first = train_styles(many())
    (paintings / "stripes.png").rename(paintings / "aslant.png")
    further = many(initial_weights=first)
    initial, own = load_network(first)[0], ManyStyles(further, CPU).network
    mean = initial.styles.mean(0)
    assert torch.equal(own.styles, torch.stack([mean, initial.styles[0]]))  # aslant is new, dots was first
    share = initial_weights(many(initial_weights=first, initial_share=0.25), own, ["aslant", "dots"])
    assert torch.equal(share["styles"], own.styles)


def test_a_second_size_is_learned_by_the_styles_alone(many, tmp_path):
    first = train_styles(many(style_sizes=64))
    files = {"sample_path": tmp_path / "second", "model_path": tmp_path / "second.safetensors"}
    second = train_styles(many(**files, style_sizes=(64, 96), initial_weights=first, trainable="styles"))
    one, two = (load_network(each)[0].state_dict() for each in (first, second))
    assert two.pop("styles").shape == (2, 2, one.pop("styles").shape[2])
    assert all(torch.equal(one[name], two[name]) for name in one)
    styles = load_network(second)[0].styles
    assert not torch.equal(styles[:, 0], styles[:, 1])


def test_without_initial_weights_there_are_no_convolutions_to_keep(many):
    with pytest.raises(InputError, match="trainable: styles alone need --initial-weights"):
        train_styles(many(trainable="styles"))


@pytest.mark.parametrize(
    ("name", "picture", "message"),
    [
        ("broken.jpg", b"not an image", "broken.jpg"),
        ("small.png", Image.effect_noise((63, 200), 80), "63×200 pixels are too few; a painting needs 64 a side"),
        ("grey.png", Image.new("RGB", (80, 80), (90, 90, 90)), "is of one colour, and has no style"),
        ("a:b.png", Image.effect_noise((80, 80), 80), "rename .*a:b.png; 'a:b' cannot be served: letters, digits"),
        ("dots.jpg", Image.effect_noise((80, 80), 80), "would both be the style dots: rename one"),
        ("paintings.toml", b"[nobody]", "describes nobody, but there is no such painting"),
        ("paintings.toml", b"[", "paintings.toml"),
    ],
)
def test_a_painting_that_cannot_be_used(many, paintings, name, picture, message):
    if isinstance(picture, bytes):
        (paintings / name).write_bytes(picture)
    else:
        picture.convert("RGB").save(paintings / name)
    with pytest.raises(InputError, match=message):
        train_styles(many())
    assert not many().sample_path.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("circles=2", "style-draws: there is no painting 'circles'"),
        *(
            (f"dots={number}", f"style-draws: .*a number above 0, got 'dots={number}'")
            for number in ("x", "0", "nan", "inf")
        ),
    ],
)
def test_numbers_name_paintings(many, text, message):
    paintings = ManyStyles(many(), CPU).paintings
    assert numbers_by_name("style-draws", ("dots=2",), paintings) == {"dots": 2}
    with pytest.raises(InputError, match=message):
        numbers_by_name("style-draws", (text,), paintings)


def test_a_painting_can_be_drawn_more_often(many, monkeypatch):
    task = ManyStyles(many(style_draws=("dots=3",)), CPU)
    seen = []
    monkeypatch.setattr(
        task.objective.style_loss, "of_each", lambda features, which: seen.append(which) or 0 * which.float()
    )
    task.network.train()
    for _ in range(40):
        task.losses(task.samples[:1].expand(8, -1, -1, -1))
    counts = torch.cat(seen).bincount(minlength=4)  # of 320: dots and stripes, at two sizes each
    assert (counts - torch.tensor([120, 120, 40, 40])).abs().max() < 35


def test_the_paintings_that_ship_can_be_trained_on():
    """Each has an entry in their catalogue, and the catalogue names no other."""
    shipped = find_paintings(Path(styles.__file__).parent / "paintings")
    assert len(shipped) == 31 and all({"title", "artist", "year"} <= each.facts.keys() for each in shipped)
