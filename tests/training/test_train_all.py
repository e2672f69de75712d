import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import vgg16

from perceptual.inference.metadata import read_metadata

SCRIPT = Path(__file__).parents[2] / "training/train_all.sh"
COMMON = "init-features = 4\nnum-residuals = 0\nbatch-size = 1\nnum-workers = 0\nsamples = 1\nimage-size = 32\n"
RECIPES = {
    "a_begins_with_b": "upscale-factor = 4\nloss = 'pixel'\niterations = 1\n"
    "initial-weights = '../networks/b_factor.safetensors'\n",
    "a_broken": "upscale-factor = 3\n",
    "b_factor": "upscale-factor = 4\nloss = 'pixel'\niterations = 3\n",
    "c_painting": "style-image = '../stripes.png'\nstyle-size = 32\ncontent-layers = ['relu1_2']\n"
    "style-layers = ['relu1_2']\nloss-weights = '../narrow.safetensors'\niterations = 3\n",
    "d_neither": "iterations = 3\n",
    "e_protected": "style-image = '../elsewhere.jpg'\n",
}


@pytest.fixture
def folder(tmp_path, photos, painting):
    """Recipes of tiny trainings, and a loss network of random weights that ends where they look."""
    with torch.device("meta"):
        shapes = vgg16(weights=None).features[:4].state_dict()
    state = {f"features.{key}": torch.randn(value.shape) / 10 for key, value in shapes.items()}
    metadata = {"arch": "vgg16", "mean": json.dumps([0.5] * 3), "std": json.dumps([1 / 255] * 3)}
    save_file(state, tmp_path / "narrow.safetensors", metadata)
    (tmp_path / "recipes").mkdir()
    for name, content in RECIPES.items():
        (tmp_path / f"recipes/{name}.toml").write_text(content + COMMON)
    return tmp_path


@pytest.fixture
def train_all(folder):
    """Runs the script; gives its exit status, its own lines, and errors."""

    def invoke(*arguments):
        options = ["--recipes", "recipes", "--content-dir", "photos", "--device", "cpu", *arguments]
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run([SCRIPT, *options], cwd=folder, env=environment, capture_output=True, text=True)
        return done.returncode, [line for line in done.stdout.splitlines() if ": " in line], done.stderr

    return invoke


def test_it_trains_what_is_missing_in_as_many_runs_as_it_takes(train_all, folder):
    status, lines, errors = train_all("--minutes", "0")
    assert status == 130 and lines[:2] == ["a_broken: training", "b_factor: no time left; call again to go on"]
    assert "upscale-factor: expected 4 or 8, got '3'" in errors
    (folder / "recipes/a_broken.toml").unlink()

    status, lines, _ = train_all("--minutes", "0")  # each call gets something done
    assert (status, lines) == (130, ["b_factor: training", "b_factor: not finished; call again to go on"])
    assert torch.load(folder / "runs/b_factor/checkpoint.pt", weights_only=True)["iteration"] == 1
    assert read_metadata(folder / "networks/b_factor.safetensors")["provenance"]["iterations"] == 1

    status, lines, errors = train_all("--minutes", "5")
    assert status == 0 and [line for line in lines if "training" in line] == [
        "b_factor: training",
        "c_painting: training",
        "a_begins_with_b: training",
    ]
    for name in ("b_factor", "c_painting"):
        assert read_metadata(folder / f"networks/{name}.safetensors")["provenance"]["iterations"] == 3
    status, lines, _ = train_all()
    assert status == 0 and [line for line in lines if "left out" not in line] == [
        f"{name}: is there" for name in ("b_factor", "c_painting", "a_begins_with_b")
    ]
    assert "e_protected: left out, as there is no recipes/../elsewhere.jpg; the recipe says where to get it" in lines


def test_bad_input_is_one_line(train_all):
    for arguments, message in [
        (("--minutes", "soon"), "train_all.sh: --minutes: expected a number, got 'soon'\n"),
        (("--recipes", "nowhere"), "train_all.sh: there is no folder nowhere\n"),
        (("--models",), "train_all.sh: --models needs a value\n"),
    ]:
        assert train_all(*arguments) == (2, [], message)
