"""A small VGG of random weights and a folder of photos: real trainings in seconds."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import VGG
from torchvision.models.vgg import make_layers

from perceptual.settings import parse
from perceptual_training import loss_network
from perceptual_training.settings import StyleSettings

# VGG-16's layers, an eighth as wide.
NARROW = [8, 8, "M", 16, 16, "M", 32, 32, 32, "M", 64, 64, 64, "M", 64, 64, 64, "M"]
# The command line, with the narrow VGG-16 in VGG-16's place, for a process of its own.
PROGRAM = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from training_fixtures import narrow_vgg
from perceptual_training import loss_network
loss_network.ARCHITECTURES["vgg16"] = loss_network.Architecture(narrow_vgg, "x", (0.5,) * 3, (1 / 255,) * 3)
from perceptual.commands import main
sys.exit(main(sys.argv[1:]))
"""


def narrow_vgg(weights=None, init_weights=True):
    return VGG(make_layers(NARROW), num_classes=2, init_weights=init_weights)


@pytest.fixture
def loss_weights(monkeypatch, tmp_path):
    """A weights file of a narrow VGG-16, which takes VGG-16's place."""
    narrow = partial(loss_network.Architecture, narrow_vgg, "http://127.0.0.1:9/vgg16-00000000.pth")
    monkeypatch.setitem(loss_network.ARCHITECTURES, "vgg16", narrow((0.5,) * 3, (1 / 255,) * 3))
    torch.manual_seed(1)
    state = {f"features.{key}": value for key, value in make_layers(NARROW).state_dict().items()}
    file = tmp_path / "narrow.safetensors"
    metadata = {"arch": "vgg16, an eighth as wide", "mean": json.dumps([0.5] * 3), "std": json.dumps([1 / 255] * 3)}
    save_file(state, file, metadata)
    return file


def smooth_picture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A picture of coloured blobs, uint8 H×W×3, of a width and height."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return np.asarray(coarse.resize(size, Image.Resampling.BICUBIC))


def make_photos(folder: Path, count: int, size: tuple[int, int] = (60, 48)) -> list[Path]:
    """Pictures of coloured blobs, each another, in two nested folders."""
    rng = np.random.default_rng(0)
    paths = []
    for index in range(count):
        path = folder / ("a" if index % 2 else "b/c") / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smooth_picture(rng, size)).save(path)
        paths.append(path)
    return paths


@pytest.fixture
def photos(tmp_path):
    """A folder of 24 small photos."""
    folder = tmp_path / "photos"
    make_photos(folder, 24)
    return folder


@pytest.fixture
def painting(tmp_path):
    """A style image: stripes."""
    stripes = np.zeros((64, 80, 3), np.uint8)
    stripes[:, ::8] = (255, 200, 0)
    stripes[::16] = (0, 60, 200)
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    return tmp_path / "stripes.png"


@pytest.fixture
def paintings(tmp_path, painting):
    """A folder of two paintings, of which one is in the catalogue."""
    folder = tmp_path / "paintings"
    folder.mkdir()
    painting.rename(folder / "stripes.png")
    dots = np.zeros((70, 90, 3), np.uint8)
    dots[::6, ::6] = (250, 20, 120)
    Image.fromarray(dots).save(folder / "dots.png")
    (folder / "paintings.toml").write_text('[dots]\ntitle = "Dots"\nartist = "Nobody"\n')
    return folder


@pytest.fixture
def settings(photos, painting, loss_weights, tmp_path):
    """Settings of a training of six iterations, with what a test changes of them."""

    def make(**changes):
        values = {
            "content-dir": photos,
            "style-image": painting,
            "loss-weights": loss_weights,
            "init-features": 4,
            "num-residuals": 1,
            "image-size": 32,
            "style-size": 32,
            "batch-size": 2,
            "iterations": 6,
            "num-workers": 0,
            "samples": 2,
            "log-step": 2,
            "save-step": 3,
            "sample-step": 3,
            "name": "stripes",
            "model-path": tmp_path / "models" / "stripes.safetensors",
            "sample-path": tmp_path / "run",
            "device": "cpu",
        }
        return parse(StyleSettings, values | {name.replace("_", "-"): value for name, value in changes.items()})

    return make
