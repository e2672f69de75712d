import hashlib
import json
from statistics import median

import pytest
import torch
from PIL import Image

from perceptual.errors import InvalidOption, TrainingError, WeightsError
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.predictor import load
from perceptual.inference.weights import save_network
from perceptual.settings import parse
from perceptual_training import style_evaluation
from perceptual_training.evaluation_settings import StyleEvaluationSettings
from perceptual_training.loss_network import load_loss_network
from perceptual_training.style_evaluation import checked_objective, evaluate_style, figures, losses_of


@pytest.fixture
def network(tmp_path, painting, loss_weights):
    """Writes the weights file of a tiny network that seems to have been trained on the stripes."""

    def make(name, **changes):
        torch.manual_seed(0)
        recipe = {"style_size": 32, "style_weights": [2.0], "reg_weight": 50.0, "loss_weights": loss_weights.name}
        provenance = {
            "style_image": painting.name,
            "style_image_sha256": hashlib.sha256(painting.read_bytes()).hexdigest(),
            "loss_network": load_loss_network("vgg16", ["relu2_2"], loss_weights)[1],
            "recipe": recipe,
        }
        file = tmp_path / f"{name}.safetensors"
        save_network(file, StyleNetwork(init_features=4, num_residuals=1), provenance | changes)
        return file

    return make


@pytest.fixture
def settings(tmp_path, network, photos, painting, loss_weights):
    def make(**changes):
        values = {
            "model": [str(network("stripes"))],
            "content": photos,
            "split": "all",
            "photos": 2,
            "sizes": [32, 40],
            "iterations": [2, 6],
            "style-image": painting,
            "loss-weights": loss_weights,
            "output": tmp_path / "out",
            "device": "cpu",
        }
        values |= {name.replace("_", "-"): value for name, value in changes.items()}
        return parse(StyleEvaluationSettings, {name: value for name, value in values.items() if value is not None})

    return make


def test_report_json_and_contact_sheets(settings, tmp_path):
    report = evaluate_style(settings()).read_text()
    content = json.loads((tmp_path / "out/style.json").read_text())
    methods = ["photo", "stripes", "optimization, 2", "optimization, 6"]
    assert [(row["size"], row["method"]) for row in content["means"]] == [(s, m) for s in (32, 40) for m in methods]
    rows = content["images"]
    assert len(rows) == 16
    for row in rows:
        assert row["total"] == pytest.approx(row["content"] + row["style"] + row["total variation"])
        layers = [row[f"style {layer}"] for layer in ("relu1_2", "relu2_2", "relu3_3", "relu4_3")]
        assert row["style"] == pytest.approx(sum(layers))
        assert (row["content"] == 0) == (row["method"] == "photo")
    for size in (32, 40):
        mean = {row["method"]: row for row in content["means"] if row["size"] == size}
        assert mean["optimization, 6"]["total"] < mean["optimization, 2"]["total"] < mean["photo"]["total"]
        assert f"| stripes | {size}² | photo | 0 | " in report and "| 100.0% |" in report
        with Image.open(tmp_path / f"out/contact_sheet_stripes_{size}.png") as sheet:
            assert sheet.width == 4 * (size + 6) + 6
    assert set(content["artefacts"][0]) == {"network", "grid, grey", "grid, gradients", "border", "centre"}


def test_figures_are_those_of_the_training(settings):
    chosen = settings()
    predictor = load(chosen.model[0], "cpu")
    losses = losses_of("stripes", predictor, chosen)
    assert (losses.style_size, losses.style_weights, losses.reg_weight) == (32, (2.0,), 50.0)
    objective = checked_objective(losses, {"stripes": predictor})
    photo, image = torch.rand(2, 1, 3, 32, 32)
    targets = objective.targets(photo)
    measured, expected = figures(objective, image, targets), objective(image, targets)
    assert measured["total variation"] == pytest.approx(expected["total_variation"].item())
    assert [measured[name] for name in ("content", "style")] == pytest.approx(
        [expected[name].item() for name in ("content", "style")]
    )


def test_a_network_is_worth_the_iterations_after_which_optimization_is_as_good(settings, tmp_path, monkeypatch):
    def falling(losses, start, iterations):
        for done in range(iterations + 1):
            total = {"style": torch.tensor(10.0 ** (8 - done))}
            yield style_evaluation_step(done, start, total)

    def style_evaluation_step(done, image, total):
        from perceptual_training.picture_optimization import Step

        return Step(done, image, {name: value.item() for name, value in total.items()})

    monkeypatch.setattr(style_evaluation, "optimize", falling)
    report = evaluate_style(settings(sizes=[32], iterations=[1, 30])).read_text()
    rows = json.loads((tmp_path / "out/style.json").read_text())["images"]
    networks = [row for row in rows if row["method"] == "stripes"]
    for row in networks:
        assert 10.0 ** (8 - row["worth"]) <= row["total"] < 10.0 ** (9 - row["worth"])
    counts = [row["worth"] for row in networks]
    assert f"| {median(counts):.0f} ({min(counts)} to {max(counts)}) |" in report
    assert "| > 1 (> 1 to > 1) |" in evaluate_style(settings(sizes=[32], iterations=[1])).read_text()


def test_optimization_from_noise_has_further_to_go(settings, tmp_path):
    totals = {}
    for start in ("photo", "noise"):
        report = evaluate_style(settings(sizes=[32], photos=1, iterations=[1], start=start)).read_text()
        assert f"optimized by L-BFGS from {start}." in report
        *_, row = json.loads((tmp_path / "out/style.json").read_text())["images"]
        totals[start] = row["total"]
    assert totals["noise"] > totals["photo"]


def test_networks_of_the_same_losses_share_the_optimization(settings, network, monkeypatch, tmp_path):
    calls = []
    original = style_evaluation.optimize
    monkeypatch.setattr(style_evaluation, "optimize", lambda *args: calls.append(1) or original(*args))
    first, same = settings().model[0], str(network("same"))
    evaluate_style(settings(model=[first, same], sizes=[32], photos=1, iterations=[1]))
    assert len(calls) == 1
    content = json.loads((tmp_path / "out/style.json").read_text())
    assert [row["network"] for row in content["artefacts"]] == ["stripes", "same"]

    other = str(network("other", recipe={"style_size": 48, "loss_weights": "narrow.safetensors"}))
    with pytest.raises(InvalidOption, match="stripes and other were trained with different losses: evaluate them sep"):
        evaluate_style(settings(model=[first, same, other]))


def test_a_network_of_a_recipe_that_ships_is_measured_with_the_painting_that_ships(settings, network):
    painting = style_evaluation.STYLES / "starry_night.jpg"
    recipe = {"style_size": 384, "style_weights": [1.0], "reg_weight": 5e5, "loss_network": "vgg19"}
    digest = hashlib.sha256(painting.read_bytes()).hexdigest()
    file = network("mine", recipe=recipe, style_image=painting.name, style_image_sha256=digest)
    losses = losses_of("mine", load(file, "cpu"), settings(style_image=None))
    assert losses.style_image == painting
    assert (losses.loss_network, losses.style_size, losses.reg_weight) == ("vgg19", 384, 5e5)


def test_bad_input_is_one_clear_error(settings, network, upscaler, weights, photos, tmp_path):
    with pytest.raises(WeightsError, match="these weights are for super-resolution, not for style"):
        evaluate_style(settings(model=[str(upscaler)]))
    with pytest.raises(TrainingError, match="tiny: its metadata has no recipe"):
        evaluate_style(settings(model=[str(weights)]))
    with pytest.raises(TrainingError, match=r"there is no .*stripes\.png; name the painting of stripes"):
        evaluate_style(settings(style_image=None))
    with pytest.raises(TrainingError, match=r"001\.png is not the painting that stripes was trained on"):
        evaluate_style(settings(style_image=photos / "a" / "001.png"))
    with pytest.raises(TrainingError, match=r"was trained with vgg16, narrow\.safetensors.*--loss-weights"):
        evaluate_style(settings(loss_weights=None))
    trained_otherwise = network("else", loss_network="vgg16, other.safetensors (SHA-256 00ff)")
    with pytest.raises(TrainingError, match=r"else was trained with vgg16, other\.safetensors .* not vgg16, narrow"):
        evaluate_style(settings(model=[str(trained_otherwise)]))
    with pytest.raises(TrainingError, match="there is no folder .*--content$"):
        evaluate_style(settings(content=tmp_path / "missing"))
    few = tmp_path / "few"
    few.mkdir()
    (photos / "a" / "001.png").rename(few / "001.png")
    with pytest.raises(TrainingError, match="none of the 1 images .* of the test split; choose another --split"):
        evaluate_style(settings(content=few, split="test"))
    with pytest.raises(InvalidOption, match="sizes: expected one or more of: a whole number of at least 32"):
        settings(sizes=[8])


def test_losses_of_many_styles_are_not_taken_for_those_of_one(settings, network):
    recipe = {"style_sizes": [64, 96], "style_weights": [5.0], "loss_weights": "narrow.safetensors"}
    learned = network("learned", recipe=recipe, trunk="00ff")
    with pytest.raises(TrainingError, match="learned was trained by the losses of many styles, .* evaluate styles,"):
        evaluate_style(settings(model=[str(learned)]))


def test_command(run, settings, painting, loss_weights, tmp_path):
    chosen = settings()
    status, out, err = run(
        *("evaluate", "style", "--model", chosen.model[0], "--content", chosen.content, "--split", "all"),
        *("--style-image", painting, "--loss-weights", loss_weights, "--photos", 1, "--sizes", 32),
        *("--iterations", 3, "--output", tmp_path / "report", "--device", "cpu"),
    )
    assert (status, err) == (0, "") and out.count("| stripes | 32² |") == 3 and str(tmp_path / "report") in out
