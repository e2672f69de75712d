"""A small VGG of random weights and a folder of photos: real trainings in seconds."""

import json
import multiprocessing
import os
import sys
from collections import OrderedDict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.models.vgg import make_layers

from perceptual.commands import main
from perceptual.settings import parse
from perceptual_training import learning, loss_network, style, styles, task
from perceptual_training.settings import StyleSettings

# VGG-16's layers, an eighth as wide.
NARROW = [8, 8, "M", 16, 16, "M", 32, 32, 32, "M", 64, 64, 64, "M", 64, 64, 64, "M"]
# The modules that make sample sheets, and the side of a picture on those of tests, in pixels.
SAMPLING, SIDE = (task, style, styles, learning), 64
# The command line, with the narrow VGG-16 in VGG-16's place, for a process of its own.
PROGRAM = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from training_fixtures import command_line
sys.exit(command_line(sys.argv[1:]))
"""
# Starts processes that have torch imported already. It finds installed modules only, and passes over all others.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["pytest", "perceptual_training.learning", "torch.utils.tensorboard"])


def command_line(arguments):
    """Runs a command line with the narrow VGG-16 in VGG-16's place, and small samples; returns its exit status."""
    loss_network.ARCHITECTURES["vgg16"] = loss_network.Architecture(narrow_vgg, "x", (0.5,) * 3, (1 / 255,) * 3)
    for module in SAMPLING:
        module.FRAME_SIZE = SIDE
    return main(arguments)


def run_as_process(arguments, environment, errors):
    """The body of a process from :data:`FORKSERVER`: runs a command line, with errors going to a file."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.exit(command_line(arguments))


def narrow_vgg(weights=None, init_weights=True):
    """A VGG without its classifier, which nothing uses and which would take a second to make."""
    return nn.Sequential(OrderedDict(features=make_layers(NARROW)))


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
def small_samples(monkeypatch):
    """Small pictures on sample sheets, which would take longer than a training of few iterations; gives their side."""
    for module in SAMPLING:
        monkeypatch.setattr(module, "FRAME_SIZE", SIDE)
    return SIDE


@pytest.fixture
def tiny(photos, loss_weights, small_samples, tmp_path):
    """Makes a function that gives settings of a training of six iterations, with what a test changes of them."""

    def maker(parse_settings, **own):
        common = {
            "content_dir": photos,
            "loss_weights": loss_weights,
            "init_features": 4,
            "num_residuals": 1,
            "image_size": 32,
            "batch_size": 2,
            "iterations": 6,
            "num_workers": 0,
            "samples": 2,
            "log_step": 2,
            "save_step": 3,
            "sample_step": 6,
            "model_path": tmp_path / "models" / "weights.safetensors",
            "sample_path": tmp_path / "run",
            "device": "cpu",
        }

        def make(**changes):
            values = {**common, **own, **changes}
            given = {name.replace("_", "-"): value for name, value in values.items() if value is not None}
            return parse_settings(given)

        return make

    return maker


@pytest.fixture
def settings(tiny, painting, tmp_path):
    """Settings of a training of one style."""
    own = {"style_image": painting, "style_size": 32, "name": "stripes"}
    return tiny(partial(parse, StyleSettings), **own, model_path=tmp_path / "models" / "stripes.safetensors")
