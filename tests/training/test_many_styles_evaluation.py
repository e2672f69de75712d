import json
from dataclasses import replace
from statistics import fmean

import pytest
from PIL import Image
from training_fixtures import make_photos

from perceptual.errors import InvalidOption, TrainingError
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.styles import read_weights, save_style
from perceptual.inference.weights import save_network
from perceptual.settings import parse
from perceptual_training.data import find_photos, spread
from perceptual_training.evaluation_settings import ManyStylesEvaluationSettings
from perceptual_training.loss_network import load_loss_network
from perceptual_training.many_styles_evaluation import evaluate_many_styles
from perceptual_training.paintings import find_paintings
from perceptual_training.pictures import load_square
from perceptual_training.weaves import weave


@pytest.fixture
def measured(tmp_path, paintings, photos, loss_weights):
    """Settings of an evaluation of a random network, that says it has learned two paintings at two sizes."""
    recipe = {"style_sizes": [64, 96], "style_weights": [5.0], "peak_weight": 2e4, "loss_weights": loss_weights.name}
    told = {"styles": [each.provenance() for each in find_paintings(paintings)], "recipe": recipe}
    small = {"init_features": 4, "num_residuals": 1}
    told["loss_network"] = load_loss_network("vgg16", ["relu2_2"], loss_weights)[1]
    save_network(tmp_path / "many.safetensors", StyleNetwork(styles=2, sizes=2, **small), told)
    save_network(tmp_path / "alone.safetensors", StyleNetwork(**small), {"style_image": "dots.png"})

    def make(**changes):
        values = {
            "model": str(tmp_path / "many.safetensors"),
            "style-dir": paintings,
            "against": [str(tmp_path / "alone.safetensors")],
            "content": photos,
            "split": "all",
            "photos": 2,
            "sizes": [64, 72],
            "loss-weights": loss_weights,
            "output": tmp_path / "out",
            "device": "cpu",
        }
        return parse(
            ManyStylesEvaluationSettings, values | {name.replace("_", "-"): value for name, value in changes.items()}
        )

    return make


@pytest.fixture
def learned(measured, paintings, tmp_path):
    """A style file of the painting of dots, with the numbers of that style in the network."""
    trunk = read_weights(measured().model)
    painting = find_paintings(paintings)[0].provenance()
    told = {each: trunk.metadata["provenance"][each] for each in ("recipe", "loss_network")}
    (tmp_path / "styles").mkdir()
    (tmp_path / "styles/many.safetensors").symlink_to(measured().model)
    file = tmp_path / "styles/dots.safetensors"
    save_style(file, trunk.tensors["styles"][0], trunk.trunk, {**painting, **told, "trunk": trunk.trunk})
    return file


def test_a_learned_style_is_measured_as_it_is_in_the_network(measured, learned, tmp_path):
    found = []
    for model in (measured().model, str(learned)):
        evaluate_many_styles(measured(model=model, styles=["dots"], sizes=[64]))
        found.append(json.loads((tmp_path / "out/styles.json").read_text())["means"])
    names = [[row.pop("method") for row in means] for means in found]
    assert names == [["photo", "many", "alone"] * 2, ["photo", "dots", "alone"] * 2] and found[0] == found[1]


def test_the_report_counts_the_photos_that_were_there(measured, tmp_path):
    make_photos(tmp_path / "few", 3)
    report = evaluate_many_styles(measured(content=tmp_path / "few", photos=50, styles=["dots"], sizes=[64]))
    assert "Means over 3 photos" in report.read_text()


def test_every_style_at_every_size_beside_a_network_of_one(measured, photos, tmp_path):
    report = evaluate_many_styles(measured()).read_text()
    means = json.loads((tmp_path / "out/styles.json").read_text())["means"]
    methods = {"dots": ["photo", "many", "alone"], "stripes": ["photo", "many"]}
    assert [(row["size"], row["painting"], row["painted at"], row["method"]) for row in means] == [
        (size, painting, at, method)
        for size in (64, 72)
        for painting in methods
        for at in (64, 96)
        for method in methods[painting]
    ]
    for row in means:
        assert row["total"] == pytest.approx(row["content"] + row["style"] + row["total variation"])
        if row["method"] == "photo":  # every painting weighs the same
            assert row["style"] == pytest.approx(5e6) and row["content"] == row["relu4_2"] == 0
            squares = [load_square(file, row["size"]) for file in spread(find_photos(photos, "all"), 2)]
            assert row["weave"] == pytest.approx(fmean(float(weave(square)) for square in squares))
        else:
            assert row["content"] > 0 and row["relu4_2"] > 0
    assert "| dots | 64 | photo | 0 |" in report and "grid, gradients" in report
    with Image.open(tmp_path / "out/contact_sheet_72.png") as sheet:
        assert sheet.width == 3 * (72 + 6) + 6


def test_what_cannot_be_measured(measured, paintings):
    with pytest.raises(TrainingError, match=r"loss-weights: .* was trained with .*: give its path"):
        evaluate_many_styles(replace(measured(), loss_weights=None))
    with pytest.raises(InvalidOption, match="there is no style 'waves' here; the styles are: dots, stripes"):
        evaluate_many_styles(measured(styles=["waves"]))
    painting = Image.effect_noise((80, 80), 60).convert("RGB")
    (paintings / "more").mkdir()
    painting.save(paintings / "more" / "waves.png")
    with pytest.raises(TrainingError, match="none of the paintings is in"):
        evaluate_many_styles(measured(style_dir=paintings / "more"))
    (paintings / "stripes.png").rename(paintings / "more" / "stripes.png")
    with pytest.raises(TrainingError, match=f"there is no painting of stripes in {paintings}; name its folder"):
        evaluate_many_styles(measured(styles=["dots", "stripes"]))
    painting.save(paintings / "dots.png")
    with pytest.raises(TrainingError, match=r"dots\.png is not the file that the style dots was trained on"):
        evaluate_many_styles(measured())
