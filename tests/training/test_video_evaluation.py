import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_many_styles_evaluation import learned, measured  # noqa: F401
from test_style_evaluation import network  # noqa: F401

from perceptual.inference.images import Picture
from perceptual.inference.predictor import Predictor
from perceptual_training.loss_network import load_loss_network
from perceptual_training.losses import FeatureReconstructionLoss, StyleReconstructionLoss, TotalVariationLoss
from perceptual_training.objective import StyleObjective

pytest.importorskip("av")

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, CUDA])])
def test_every_level_is_measured_by_one_run_of_the_network(
    run,
    network,  # noqa: F811
    painting,
    loss_weights,
    tmp_path,
    monkeypatch,
    device,
):
    (clip := tmp_path / "clip").mkdir()
    with Image.open("docs/photos/chelsea.jpg") as photo:
        for index in range(6):
            photo.crop((60 + 2 * index, 40, 124 + 2 * index, 104)).save(clip / f"{index}.png")
    frames = []
    stylize = Predictor.stylize_pictures
    monkeypatch.setattr(
        Predictor, "stylize_pictures", lambda self, given, *rest: frames.extend(given) or stylize(self, given, *rest)
    )
    arguments = ("--model", network("stripes"), "--clips", clip, "--frames", 5)
    losses = ("--style-image", painting, "--loss-weights", loss_weights, "--device", device)
    status, out, err = run("evaluate", "video", *arguments, *losses, "--output", tmp_path / "out")
    assert (status, len(frames)) == (0, 5), err
    rows = json.loads((tmp_path / "out" / "video.json").read_text())["clips"]
    assert [row["steady"] for row in rows] == ["off", "normal", "strong"] and "| strong |" in out
    assert rows[0]["feature distance"] == 0 < rows[0]["style"]
    assert rows[0]["ms a frame"] < rows[1]["ms a frame"]
    assert (tmp_path / "out" / "strip_clip.png").exists()


def test_frames_are_compared_on_the_device_of_the_loss_network(loss_weights, monkeypatch):
    from perceptual_training.video_evaluation import fidelity

    loss_network, _ = load_loss_network("vgg16", ["relu2_2"], loss_weights)
    content = FeatureReconstructionLoss({"relu2_2": 1.0})
    objective = StyleObjective(loss_network.to("meta"), content, StyleReconstructionLoss({}), TotalVariationLoss(0.0))
    monkeypatch.setattr(torch.Tensor, "item", lambda tensor: 0.0)  # tensors on this device have no values
    frames = [Picture(torch.zeros(3, 32, 32, dtype=torch.uint8))] * 2
    assert fidelity(objective, frames, frames, frames) == {"style": 0, "content": 0, "feature distance": 0}


def test_one_style_of_many_is_measured_by_its_own_painting(
    run,
    measured,  # noqa: F811
    learned,  # noqa: F811
    paintings,
    loss_weights,
    tmp_path,
):
    (clip := tmp_path / "clip").mkdir()
    with Image.open("docs/photos/chelsea.jpg") as photo:
        for index in range(3):
            photo.crop((60 + 2 * index, 40, 124 + 2 * index, 104)).save(clip / f"{index}.png")
    measured()
    many, alone = (("--model", file) for file in (tmp_path / "many.safetensors", learned))
    arguments = ("--clips", clip, "--style-dir", paintings)
    losses = ("--loss-weights", loss_weights, "--device", "cpu", "--output", tmp_path / "out")
    found = []
    for chosen in ((*many, "--style", "dots"), (*many, "--style", "stripes"), alone):
        status, _, err = run("evaluate", "video", *chosen, *arguments, *losses)
        assert status == 0, err
        found.append(json.loads((tmp_path / "out" / "video.json").read_text())["clips"][0]["style"])
    assert found[0] == found[2] != found[1]
    status, _, err = run("evaluate", "video", *many, *arguments, *losses)
    assert status == 1 and "style is missing; the styles are: dots, stripes" in err
    shipped = Path("training/paintings").resolve()
    status, _, err = run("evaluate", "video", *alone, "--clips", clip, *losses)
    assert status == 1 and f"there is no painting of dots in {shipped}; name its folder with --style-dir" in err
