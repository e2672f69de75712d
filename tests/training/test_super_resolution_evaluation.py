import json
import os
import weakref
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torchvision.models import AlexNet_Weights, alexnet
from training_fixtures import make_photos

from perceptual.errors import InvalidOption, TrainingError, WeightsError
from perceptual.inference import images
from perceptual.inference.networks import SuperResolutionNetwork
from perceptual.inference.weights import save_network
from perceptual.settings import parse
from perceptual_training.data import image_files
from perceptual_training.evaluation_settings import EvaluationSettings
from perceptual_training.super_resolution_evaluation import (
    detail,
    divisible,
    enlargements,
    evaluate,
    lpips,
    measure,
    readable_images,
)

STANDARD = Path(os.environ.get("SR_EVAL", "sr_eval"))


@pytest.fixture
def settings(tmp_path, upscaler, loss_weights):
    """Settings of an evaluation of a random network on three images."""
    make_photos(tmp_path / "data", 3, (61, 50))

    def make(**changes):
        values = {
            "model": [str(upscaler)],
            "data": tmp_path / "data",
            "loss-weights": loss_weights,
            "output": tmp_path / "out",
            "device": "cpu",
        }
        return parse(EvaluationSettings, values | {name.replace("_", "-"): value for name, value in changes.items()})

    return make


def test_report_json_and_contact_sheet(settings, tmp_path):
    report = evaluate(settings()).read_text()
    assert report.count("| mean | ×4 | paper |") == 4 and report.count("×4 | paper | tiny_x4, matched |") == 4
    content = json.loads((tmp_path / "out/super_resolution.json").read_text())
    assert content["settings"]["degradation"] == "paper"
    methods = ["bicubic", "tiny_x4", "tiny_x4, matched", "tiny_x4, matched low"]
    assert [row["method"] for row in content["means"]] == methods
    assert [row["image"] for row in content["images"][::4]] == ["001.png", "000.png", "002.png"]
    metrics = {"PSNR Y", "SSIM Y", "PSNR RGB", "SSIM RGB", "relu2_2", "relu3_3"}
    for mean in content["means"]:
        rows = [row for row in content["images"] if row["method"] == mean["method"]]
        assert metrics < mean.keys() and len(rows) == 3
        assert all(mean[name] == pytest.approx(fmean(row[name] for row in rows)) for name in metrics)
    bicubic, plain, matched, _ = content["means"]
    assert bicubic["PSNR Y"] > matched["PSNR Y"] != plain["PSNR Y"]  # the network is a random one
    with Image.open(tmp_path / "out/contact_sheet_x4.png") as sheet:
        assert sheet.width == 5 * (192 + 6) + 6  # four methods and the target


def test_networks_of_both_factors_each_against_its_bicubic(settings, upscaler, tmp_path):
    eight = tmp_path / "tiny_x8.safetensors"
    save_network(eight, SuperResolutionNetwork(scale=8, init_features=4, num_residuals=0), {})
    evaluate(settings(model=[str(eight), str(upscaler)], loss_network="none", degradation="bicubic"))
    means = json.loads((tmp_path / "out/super_resolution.json").read_text())["means"]
    assert [(row["scale"], row["method"]) for row in means[::4]] == [(4, "bicubic"), (8, "bicubic")]
    assert means[4]["PSNR Y"] == pytest.approx(means[5]["PSNR Y"])  # untrained, it is bicubic
    assert "relu2_2" not in means[0] and {row["degradation"] for row in means} == {"bicubic"}


def test_images_are_not_held_in_memory_all_at_once(settings, tmp_path, monkeypatch):
    make_photos(tmp_path / "data", 6, (61, 50))
    pixels, alive = [], []
    load = images.load

    def counted(file):
        alive.append(sum(each() is not None for each in pixels))
        picture = load(file)
        pixels.append(weakref.ref(picture.rgb))
        return picture

    monkeypatch.setattr(images, "load", counted)
    evaluate(settings(loss_network="none"))
    assert len(alive) == 12 and max(alive) == 1  # checked before, then measured


def test_figures_of_known_differences():
    target = torch.full((3, 40, 40), 100, dtype=torch.uint8)
    result = target.clone()
    result[:, 8:-8, 8:-8] += 10
    result[:, :4] = 255  # in the border, which does not count
    figures = measure(result, target, 8)
    assert figures["PSNR RGB"] == pytest.approx(20 * np.log10(255 / 10))
    assert figures["PSNR Y"] == pytest.approx(20 * np.log10(255 / (10 * 219 / 255)))  # Y spans 16 to 235
    assert figures["SSIM Y"] < 1 and measure(target, target + 1, 8)["SSIM RGB"] > 0.99


def test_ssim_is_that_of_its_authors():
    """Wang et al. 2004, equation 13, written out: a Gaussian window of 11 px and 1.5 px, K1 = 0.01, K2 = 0.03."""
    torch.manual_seed(0)
    target = torch.nn.functional.interpolate(255 * torch.rand(1, 3, 12, 15), (48, 60), mode="bicubic")[0].clamp(0, 255)
    result = (target + 20 * torch.randn(3, 48, 60)).clamp(0, 255).byte()
    x, y = target.byte().double().numpy()[:, 8:-8, 8:-8], result.double().numpy()[:, 8:-8, 8:-8]
    blur = partial(gaussian_filter, sigma=(0, 1.5, 1.5), truncate=3.5)
    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ssim = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert measure(result, target.byte(), 8)["SSIM RGB"] == pytest.approx(ssim[:, 5:-5, 5:-5].mean(), abs=1e-6)
    assert 0.3 < ssim.mean() < 0.9


def test_a_result_without_any_error_keeps_means_finite():
    image = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
    figures = measure(image, image, 4)
    assert (figures["PSNR Y"], figures["PSNR RGB"], figures["SSIM Y"]) == (100, 100, 1)


@pytest.mark.slow
def test_lpips_is_measured_where_its_weights_are(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert lpips() is None
    torch.manual_seed(0)
    file = tmp_path / "hub/checkpoints" / AlexNet_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    file.parent.mkdir(parents=True)
    torch.save(alexnet(weights=None).state_dict(), file)
    target = torch.randint(0, 256, (3, 80, 80), dtype=torch.uint8)
    near, far = ((target.float() + shift * torch.randn(3, 80, 80)).clamp(0, 255).byte() for shift in (5, 100))
    small, large = (measure(each, target, 4, None, lpips())["LPIPS"] for each in (near, far))
    assert 0 < small < large


def test_the_detail_shown_is_the_target_s():
    target = torch.zeros(3, 200, 300, dtype=torch.uint8)
    target[:, 100:120, 210:230] = torch.randint(0, 256, (20, 20))
    crop = detail(target, target)
    assert crop.shape == (3, 64, 64) and crop.sum() == target.sum()


def test_bicubic_has_the_published_figures():
    if not STANDARD.is_dir():
        pytest.skip("Set5 is not here; name the folder that holds it with SR_EVAL")
    figures = []
    for _, image in readable_images(image_files(STANDARD / "Set5", "SR_EVAL")):
        target = divisible(image, 4)
        figures.append(measure(enlargements(target, 4, "bicubic", {})["bicubic"], target, 4))
    assert fmean(row["PSNR Y"] for row in figures) == pytest.approx(28.43, abs=0.01)
    assert fmean(row["SSIM Y"] for row in figures) == pytest.approx(0.811, abs=0.001)


def test_bad_input_is_one_clear_error(settings, weights, tmp_path):
    with pytest.raises(WeightsError, match="these weights are for style, not for super-resolution"):
        evaluate(settings(model=[str(weights)]))
    with pytest.raises(WeightsError, match="nobody is neither a weights file nor"):
        evaluate(settings(model=["nobody"]))
    with pytest.raises(TrainingError, match="there is no folder .*--data"):
        evaluate(settings(data=tmp_path / "missing"))
    with pytest.raises(InvalidOption, match="degradation: expected paper or bicubic"):
        settings(degradation="jpeg")
    broken = tmp_path / "data/broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(TrainingError, match=r"broken\.png: this is not an image"):
        evaluate(settings())
    Image.new("RGB", (18, 40)).save(broken)
    with pytest.raises(TrainingError, match=r"broken\.png has too few pixels to be measured at ×4"):
        evaluate(settings())


def test_command(run, settings, upscaler, loss_weights, tmp_path):
    chosen = settings()
    status, out, err = run(
        *("evaluate", "super-resolution", "--model", upscaler, "--data", chosen.data, "--loss-weights", loss_weights),
        *("--output", tmp_path / "report"),
    )
    assert (status, err) == (0, "") and out.count("| mean |") == 4 and str(tmp_path / "report") in out
