from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from training_fixtures import make_photos

from perceptual.errors import InvalidOption, TrainingError
from perceptual.inference.networks import SuperResolutionNetwork
from perceptual.inference.weights import load_network, save_network
from perceptual.settings import parse
from perceptual_training import super_resolution
from perceptual_training.settings import SuperResolutionSettings
from perceptual_training.super_resolution import SuperResolution, train_super_resolution
from perceptual_training.task import randomly_cropped
from perceptual_training.texture import TextureLoss

CPU = torch.device("cpu")


@pytest.fixture
def settings(tiny):
    """Settings of a training of four iterations."""
    return tiny(partial(parse, SuperResolutionSettings), iterations=4, save_step=2, sample_step=4)


def test_the_defaults():
    settings = parse(SuperResolutionSettings, {"content-dir": "photos"})
    assert (settings.image_size, settings.batch_size, settings.lr) == (288, 4, 1e-3)
    assert (settings.iterations, settings.degradation, settings.upscale_factor) == (200_000, "mixed", 4)
    assert (settings.loss, settings.content_layers) == ("feature", ("relu2_2",))


def test_the_loss_falls(settings):
    # The paper's network begins anywhere; the default one at bicubic, from where sixty iterations hardly lead away.
    common = {"iterations": 60, "log_step": 1, "save_step": 60, "sample_step": 60}
    run = settings(**common, preset="paper", lr=1e-2, batch_size=1, loss="pixel")
    train_super_resolution(run)
    lines = (run.sample_path / "train.log").read_text().splitlines()
    totals = [float(line.split("total ")[1].split()[0]) for line in lines if "total " in line]
    assert len(totals) == 60
    assert sum(totals[-10:]) < 0.7 * sum(totals[:10])


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_run_leaves_weights_with_provenance_samples_log_and_animation(settings, scale, small_samples):
    run = settings(upscale_factor=scale, loss="both", reg_weight=10)
    network, metadata = load_network(train_super_resolution(run))
    assert metadata["task"] == "super-resolution" and network.scale == metadata["config"]["scale"] == scale
    provenance = metadata["provenance"]
    assert provenance["name"] == f"super_resolution_x{scale}_both" and provenance["degradation"] == "mixed"
    assert provenance["recipe"]["upscale_factor"] == scale and "narrow.safetensors" in provenance["loss_network"]
    assert set(provenance["losses"]) == {"feature", "pixel", "total_variation"}
    with Image.open(run.sample_path / "samples.png") as sheet:
        side = small_samples + 4
        assert sheet.size == (4 * side + 4, 2 * side + 4)  # input, bicubic, output, target for two photos
    with Image.open(run.sample_path / "evolution.gif") as animation:
        assert animation.size == (small_samples, small_samples)
    assert "4/4  feature " in (run.sample_path / "train.log").read_text()
    assert list(run.sample_path.glob("events.out.tfevents*"))


def test_the_pixel_loss_needs_no_loss_network(settings, monkeypatch):
    monkeypatch.setattr(super_resolution, "load_loss_network", None)
    run = settings(loss="pixel", loss_weights="missing.safetensors")
    _, metadata = load_network(train_super_resolution(run))
    assert metadata["provenance"]["loss_network"] is None
    assert set(metadata["provenance"]["losses"]) == {"pixel", "total_variation"}


@pytest.mark.parametrize(
    ("loss", "names"),
    [("feature", ["feature"]), ("pixel", ["pixel"]), ("both", ["feature", "pixel"])],
)
def test_losses_are_weighted_and_compare_with_the_target(settings, loss, names):
    photos = torch.rand(2, 3, 32, 32)
    once, twice = (
        SuperResolution(settings(loss=loss, pixel_weight=w, content_weight=w, reg_weight=w), CPU) for w in (1, 2)
    )
    twice.network.load_state_dict(once.network.state_dict())
    results = []
    for task in (once, twice):
        torch.manual_seed(0)  # the same shift for both
        results.append(task.losses(photos))
    (one, output), (two, _) = results
    assert list(one) == [*names, "total_variation"]
    assert output.shape == photos.shape
    for name in one:
        assert two[name].item() == pytest.approx(2 * one[name].item())
    monkey = once.network
    monkey.forward = lambda inputs: photos  # a perfect network
    perfect, _ = once.losses(photos)
    assert all(perfect[name].item() == 0 for name in names)


def test_texture_is_a_loss_of_its_own(settings):
    photos = torch.rand(2, 3, 32, 32)
    losses, outputs = SuperResolution(settings(loss="pixel", texture_weight=3), CPU).losses(photos)
    assert list(losses) == ["pixel", "texture", "total_variation"]
    assert losses["texture"].item() == TextureLoss(3)(outputs, photos).item() > 0


def test_images_are_shifted_by_less_than_a_period_and_alike():
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    places = torch.stack([rows, columns, rows])[None]
    torch.manual_seed(0)
    seen = set()
    for _ in range(200):
        one, other = randomly_cropped(4, places, places + 100)
        down, right = (int(one[0, axis, 0, 0]) for axis in (0, 1))
        assert torch.equal(one, places[..., down : down + 13, right : right + 13]) and torch.equal(one + 100, other)
        seen.add((down, right))
    assert seen == {(down, right) for down in range(4) for right in range(4)}


def test_the_network_sees_reduced_photos(settings):
    task = SuperResolution(settings(upscale_factor=8, degradation="paper"), CPU)
    seen = []
    task.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    photos = torch.rand(2, 3, 32, 32)
    task.losses(photos)
    assert seen[0].shape == (2, 3, 4, 4)
    assert torch.equal(seen[0], task.reduce(photos))


def test_a_weave_is_unsteady_and_what_follows_from_the_photo_is_not(settings):
    """Of a network that enlarges bicubically, as it begins, and of the same with another shade for each phase."""
    task = SuperResolution(settings(loss="pixel", steadiness_weight=3), CPU)
    photo = torch.linspace(0.3, 0.7, 64).expand(2, 3, 64, 64)
    losses = []
    for shade in (0, 4 / 255):
        with torch.no_grad():
            task.network.layers[-2].bias += shade * torch.randn(48, generator=torch.Generator().manual_seed(0))
        torch.manual_seed(0)
        losses.append(task.losses(photo)[0]["steadiness"].item())
    assert losses[0] < 3 and losses[1] > 30  # about 3 · 2 · 4² if no phase meets itself


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_resuming_is_exact(settings, tmp_path, preset):
    def run(name, iterations):
        return settings(
            preset=preset,
            iterations=iterations,
            sample_step=2,
            save_step=2,
            sample_path=tmp_path / name,
            model_path=tmp_path / f"{name}.st",
        )

    train_super_resolution(run("straight", 4))
    train_super_resolution(run("halves", 2))
    torch.manual_seed(99)
    train_super_resolution(run("halves", 4), resume=True)
    one, two = (load_network(tmp_path / f"{name}.st")[0].state_dict() for name in ("straight", "halves"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    with pytest.raises(TrainingError, match="upscale-factor was 4 and is now 8"):
        train_super_resolution(settings(preset=preset, upscale_factor=8, sample_path=tmp_path / "halves"), resume=True)


def test_samples_are_reduced_alike_each_time(settings):
    task = SuperResolution(settings(degradation="mixed"), CPU)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, second = task.sample_inputs(), task.sample_inputs()
    assert torch.equal(first, second) and torch.equal(torch.rand(3), expected)


def test_a_network_of_another_factor_gives_all_but_its_last_layer(settings, tmp_path):
    save_network(tmp_path / "x4.safetensors", network_of(scale=4), {})
    task = SuperResolution(settings(upscale_factor=2, initial_weights=tmp_path / "x4.safetensors"), CPU)
    initial, _ = load_network(tmp_path / "x4.safetensors")
    own, taken = task.network.state_dict(), initial.state_dict()
    last = {"layers.2.weight", "layers.2.bias"}
    assert all(torch.equal(own[name], taken[name]) for name in own.keys() - last)
    assert not any(own[name].any() for name in last)


@pytest.mark.parametrize("keeping", [{"initial_share": 0.25}, {"blend": "yes"}])
def test_what_is_written_keeps_no_network_of_another_factor(settings, tmp_path, keeping):
    save_network(tmp_path / "x4.safetensors", network_of(scale=4), {})
    with pytest.raises(InvalidOption, match=r"initial-weights: .*x4\.safetensors enlarges by another factor"):
        SuperResolution(settings(upscale_factor=2, initial_weights=tmp_path / "x4.safetensors", **keeping), CPU)


def test_a_blended_file_holds_the_initial_and_the_trained_weights(settings, tmp_path):
    save_network(tmp_path / "x4.safetensors", network_of(scale=4), {})
    run = settings(initial_weights=tmp_path / "x4.safetensors", blend="yes", lr=1e-2)
    network, _ = load_network(train_super_resolution(run))
    initial, _ = load_network(tmp_path / "x4.safetensors")
    photo = torch.rand(1, 3, 12, 14)
    assert torch.equal(network.settled(1)(photo), initial(photo))
    assert (network.settled(0)(photo) - initial(photo)).abs().max() > 1e-3
    again = SuperResolution(settings(initial_weights=run.model_path), CPU)  # begins with the faithful ones
    assert torch.equal(again.network.state_dict()["layers.0.weight"], initial.state_dict()["layers.0.weight"])


def test_a_share_of_the_initial_weights_softens_the_crisp_ones_alone(settings, tmp_path):
    save_network(tmp_path / "x4.safetensors", network_of(scale=4), {})
    found = {}
    for share in (0, 0.25):
        run = settings(
            initial_weights=tmp_path / "x4.safetensors", blend="yes", lr=1e-2, initial_share=share,
            sample_path=tmp_path / f"run{share}", model_path=tmp_path / f"{share}.safetensors",
        )  # fmt: skip
        found[share], _ = load_network(train_super_resolution(run))
    photo = torch.rand(1, 3, 12, 14)
    torch.testing.assert_close(found[0.25].settled(0)(photo), found[0].settled(0.25)(photo), atol=2e-3, rtol=0)
    assert torch.equal(found[0.25].settled(1)(photo), found[0].settled(1)(photo))


def test_a_run_named_as_the_network_it_begins_with_goes_on(settings, tmp_path, monkeypatch):
    save_network(tmp_path / "x4.safetensors", network_of(scale=4), {})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("perceptual.inference.metadata.shipped_weights", lambda: {"x4": tmp_path / "x4.safetensors"})
    found = []
    for name in ("straight", "x4"):
        own = {"name": name, "model_path": None, "sample_path": tmp_path / "runs" / name}
        run = settings(**own, initial_weights="x4", initial_share=0.25, blend="yes", loss="pixel")
        if name == "x4":
            assert train_super_resolution(replace(run, minutes=0)) is None
            assert Path("networks/x4.safetensors").is_file()  # by now the network of that name
        found.append(load_network(train_super_resolution(run, resume=name == "x4"))[0].state_dict())
    straight, resumed = found
    assert all(torch.equal(resumed[key], straight[key]) for key in straight)


def network_of(scale):
    """A random network of the trainings' size."""
    config = SuperResolutionNetwork.presets["default"] | {"init_features": 4, "num_residuals": 1}
    network = SuperResolutionNetwork(scale=scale, **config).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network


def test_photos_smaller_than_the_crops_are_skipped_and_named(settings, photos):
    small = make_photos(photos / "small", 6, (40, 31))
    run = settings(iterations=12, loss="pixel")
    train_super_resolution(run)
    last = (run.sample_path / "train.log").read_text().splitlines()[-1]
    named = [str(file) for file in small if str(file) in last]
    assert named and last.startswith(f"{len(named)} image files were skipped: damaged, or too small for a crop: ")


@pytest.mark.parametrize("workers", [0, 1])
def test_only_small_photos_are_one_clear_error(settings, workers):
    message = r"^none of the \d+ image files can be used; .*: 60×48 pixels are too few for a crop of 64×64$"
    with pytest.raises(TrainingError, match=message):
        train_super_resolution(settings(image_size=64, loss="pixel", num_workers=workers))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"upscale_factor": 3}, "upscale-factor: expected 2, 4 or 8, got '3'"),
        ({"upscale_factor": "16"}, "upscale-factor: expected 2, 4 or 8, got '16'"),
        ({"image_size": 36, "upscale_factor": 8}, "image-size: expected a multiple of --upscale-factor 8, got 36"),
        ({"loss": "perceptual"}, "loss: expected feature, pixel or both, got 'perceptual'"),
        ({"degradation": "jpeg"}, "degradation: expected mixed, paper or bicubic, got 'jpeg'"),
        ({"blend": "yes"}, "blend: needs --initial-weights"),
        ({"grid_weight": 1, "upscale_factor": 8}, "image-size: the grid loss needs 64 at least, got 32"),
        ({"content_weight": [1, 2]}, "content-weight: expected 1 or 1 numbers"),
    ],
)
def test_settings_that_do_not_go_together(settings, changes, message):
    with pytest.raises(InvalidOption, match=message):
        train_super_resolution(settings(**changes))
