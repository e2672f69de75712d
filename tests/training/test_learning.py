import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import perceptual
from perceptual.errors import InputError, TrainingError, WeightsError
from perceptual.inference.metadata import read_metadata
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.styles import find_trunk, read_weights
from perceptual.inference.weights import save_network
from perceptual_training.learning import Learning, learn_style, learning_settings, trunk_losses

CPU = torch.device("cpu")


@pytest.fixture
def trunk(tmp_path):
    """A trunk of two styles at two sizes, that says what it was trained by."""
    torch.manual_seed(0)
    network = StyleNetwork(styles=2, sizes=2, init_features=4, num_residuals=1)
    torch.nn.init.normal_(network.styles, 1)
    recipe = {"style_sizes": [64, 96], "style_weights": [3], "content_layers": ["relu2_2"], "reg_weight": 7}
    told = {"styles": [{"name": "dots"}, {"name": "waves"}], "recipe": recipe}
    save_network(tmp_path / "models" / "trunk.safetensors", network, told)
    return tmp_path / "models" / "trunk.safetensors"


@pytest.fixture
def learning(tiny, trunk, painting, tmp_path):
    """Settings of a learning."""
    decided = dict.fromkeys(("init_features", "num_residuals"))  # by the trunk
    model_path = tmp_path / "models" / "stripes.safetensors"
    return tiny(learning_settings, **decided, trunk=trunk, style_image=painting, model_path=model_path)


def test_a_painting_becomes_a_style_file(learning, trunk, small_samples):
    file = learn_style(learning())
    assert find_trunk(file) == trunk
    told = read_metadata(file)["provenance"]
    assert told["name"] == "stripes" and told["iterations"] == 6 and told["training"]["seconds"] > 0
    assert told["trunk"] == read_weights(trunk).trunk and len(told["style_image_sha256"]) == 64
    assert (told["recipe"]["style_weights"], told["recipe"]["style_sizes"], told["recipe"]["reg_weight"]) == (
        [3],
        [64, 96],
        7,
    )
    assert not {"grain", "preset", "in_channels"} & told["recipe"].keys()  # these are the trunk's
    photo = Image.effect_noise((50, 40), 80).convert("RGB")
    assert perceptual.load(file, "cpu").stylize(photo, stroke=0.5).size == (50, 40)
    with Image.open(learning().sample_path / "samples.png") as sheet:
        assert sheet.width == 4 * (small_samples + 4) + 4


def test_without_the_trunk_s_loss_network_the_default_is_used(tmp_path):
    recipe = {"loss_network": "vgg19", "style_weights": [3.0]}
    assert trunk_losses({"recipe": recipe}, {}) == {"loss-network": "vgg19", "style-weights": [3.0]}  # downloaded
    of_a_file = {"recipe": {**recipe, "loss_weights": "mine.safetensors"}}
    assert trunk_losses(of_a_file, {}) == {"style-weights": [3.0]}
    given = {"loss-weights": tmp_path / "mine.safetensors"}
    assert trunk_losses(of_a_file, given) == {"loss-network": "vgg19", "style-weights": [3.0]}


def test_nothing_but_the_style_is_trained(learning, trunk):
    before = load_file(trunk)
    task = Learning(learning(), CPU)
    assert [name for name, each in task.network.named_parameters() if each.requires_grad] == ["styles"]
    start = task.network.styles.detach().clone()
    assert any(torch.equal(start[0], row.float()) for row in before["styles"])
    learn_style(learning())
    assert all(torch.equal(before[name], after) for name, after in load_file(trunk).items())
    assert not torch.equal(load_file(learning().model_path)["style"].float(), start[0])


def test_begins_with_the_style_that_paints_nearest(learning):
    task = Learning(learning(), CPU)
    chosen = task.network.styles.detach()
    trunk = StyleNetwork(**{**task.network.config, "styles": 2}).eval().requires_grad_(False)
    state = {**task.network.state_dict(), "styles": torch.cat([chosen, torch.zeros_like(chosen)])}
    trunk.load_state_dict(state)
    nearest = task.nearest(trunk)
    trunk.load_state_dict({**state, "styles": state["styles"].flip(0)})
    assert task.nearest(trunk) == 1 - nearest


def test_resuming_is_exact(learning, tmp_path):
    straight = {"sample_path": tmp_path / "straight", "model_path": tmp_path / "straight.safetensors"}
    learn_style(learning(**straight, lr_schedule="constant"))  # the cosine depends on where the end is
    halves = {
        "lr_schedule": "constant",
        "sample_path": tmp_path / "halves",
        "model_path": tmp_path / "halves.safetensors",
    }
    learn_style(learning(**halves, iterations=3))
    (tmp_path / "halves.safetensors").unlink()
    torch.manual_seed(99)
    learn_style(learning(**halves), resume=True)
    one, two = (load_file(tmp_path / f"{name}.safetensors")["style"] for name in ("straight", "halves"))
    assert torch.equal(one, two)
    assert learn_style(learning(**halves), resume=True) == halves["model_path"]  # finished: nothing is trained


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("styles", "choose another --name for the style; styles is the name of a network"),
        ("super_resolution_x4", "super_resolution_x4 is the name of a network"),
        ("trunk", "trunk is the name of a network"),
        ("dots", "trunk.safetensors has a style dots already"),
        ("a" * 201, "choose another --name for the style; 'a{40}'… is too long: at most 200 bytes"),
    ],
)
def test_a_name_that_is_taken_or_too_long_is_refused_before_the_training(learning, name, message):
    with pytest.raises(InputError, match=message):
        learn_style(learning(name=name, model_path=None))
    assert not learning().sample_path.exists()


def test_a_file_with_the_name_of_a_trunk_that_ships_does_not_hide_it(learning, trunk, upscaler, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("perceptual.inference.styles.shipped_weights", lambda: {"trunk": trunk})
    file = learn_style(learning(model_path=None, iterations=1))
    file.with_name("trunk.safetensors").write_bytes(upscaler.read_bytes())
    assert find_trunk(file) == trunk


def test_the_longest_name_can_be_written(learning, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert learn_style(learning(name="a" * 200, model_path=None, iterations=1)).is_file()


def test_weights_that_do_not_tell_their_iterations_do_not_pass_for_learned(learning, weights):
    imported = learning().model_path
    imported.write_bytes(weights.read_bytes())
    with pytest.raises(TrainingError, match="nothing to resume"):
        learn_style(learning(), resume=True)


def test_another_painting_does_not_pass_for_what_is_learned(learning, tmp_path):
    learn_style(learning())
    Image.effect_noise((90, 80), 80).convert("RGB").save(tmp_path / "other.png")
    with pytest.raises(TrainingError, match="made with another file as the painting"):
        learn_style(learning(style_image=tmp_path / "other.png"), resume=True)


def test_the_style_s_name_must_be_one_that_can_be_served(learning, painting, tmp_path):
    of_a_camera = painting.rename(tmp_path / "my painting (1).png")
    named = {"style_image": of_a_camera, "iterations": 1}
    with pytest.raises(InputError, match=r"choose another --name for the style; 'my painting \(1\)' cannot be served"):
        learn_style(learning(**named, model_path=None))
    with pytest.raises(InputError, match="choose another --name for the style; 'my style' cannot be served"):
        learn_style(learning(**named, model_path=tmp_path / "my style.safetensors"))
    assert learn_style(learning(**named)).stem == "stripes"  # the painting's file may have any name


def test_another_trunk_does_not_go_on(learning, trunk):
    learn_style(learning(iterations=3))
    save_network(trunk, StyleNetwork(styles=2, sizes=2, init_features=4, num_residuals=1), {})
    with pytest.raises(TrainingError, match="made with another file as the trunk"):
        learn_style(
            learning(style_sizes=(64, 96), style_weights=3, content_layers="relu2_2", reg_weight=7), resume=True
        )


@pytest.mark.parametrize(
    ("name", "picture", "message"),
    [
        ("broken.jpg", b"not an image", "broken.jpg"),
        ("small.png", Image.effect_noise((63, 200), 80), "63×200 pixels are too few"),
        ("grey.png", Image.new("RGB", (80, 80), (90, 90, 90)), "is of one colour"),
    ],
)
def test_a_painting_that_cannot_be_used(learning, tmp_path, name, picture, message):
    if isinstance(picture, bytes):
        (tmp_path / name).write_bytes(picture)
    else:
        picture.convert("RGB").save(tmp_path / name)
    with pytest.raises(InputError, match=message):
        learn_style(learning(style_image=tmp_path / name))
    assert not learning().sample_path.exists()


def test_what_the_trunk_decides_cannot_be_told(learning):
    with pytest.raises(InputError, match="init-features: the trunk determines it"):
        learning(init_features=8)
    with pytest.raises(InputError, match="style-size: the trunk determines it; leave it out"):
        learning(style_size=256)
    with pytest.raises(InputError, match="content-image: with a trunk, the animation shows the first sample"):
        learning(content_image="photo.jpg")
    with pytest.raises(InputError, match="unknown option style-size-s; .*; did you mean style-sizes") as told:
        learning(style_size_s=256)
    assert "trunk, " in str(told.value) and not any(f"{each}, " in str(told.value) for each in ("preset", "channels"))
    with pytest.raises(InputError, match="style-sizes: expected 2, as the trunk has; got 1"):
        Learning(learning(style_sizes=(64,)), CPU)
    with pytest.raises(WeightsError, match="has no table of styles"):
        learning(trunk="super_resolution_x4_fast")
