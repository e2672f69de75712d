"""Ctrl-C at any place of a long command leaves a state that the same command finishes, trainings with ``--resume``."""

import os
import shlex
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from training_fixtures import FORKSERVER, make_photos, run_as_process

from perceptual.inference.networks import StyleNetwork
from perceptual.inference.weights import save_network

PLACES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the time that the command takes
INTERRUPTED = 130
TRAIN = """--content-dir photos --loss-weights narrow.safetensors --image-size 32 --batch-size 2 --iterations 8
    --num-workers 1 --samples 1 --log-step 1 --save-step 2 --sample-step 4 --device cpu"""
RESUME = {"train": " --resume", "learn": " --resume"}  # without it, they say so
COMMANDS = {
    "stylize": ("stylize photos -o out --model tiny.safetensors --engine eager", "out/b/c/000.jpg"),
    "upscale": ("upscale photos -o out --model super_resolution_x4 --engine eager", "out/b/c/000.jpg"),
    "video": ("video clip.gif -o out.gif --model tiny.safetensors --engine eager", "out.gif"),
    "optimize": (
        """optimize photos/b/c/000.png --style-image painting.png -o out.png --iterations 20 --max-size 48
        --style-size 32 --device cpu --loss-weights narrow.safetensors""",
        "out.png",
    ),
    "train": (
        f"train style {TRAIN} --style-image painting.png --init-features 4 --num-residuals 1 --style-size 32",
        "networks/painting.safetensors",
    ),
    "learn": (f"learn painting.png {TRAIN} --trunk trunk.safetensors -o out.jpg", "networks/painting.safetensors"),
}


@pytest.fixture
def inputs(tmp_path, painting, loss_weights):
    """A folder with what the commands read."""
    folder = tmp_path / "inputs"
    photos = make_photos(folder / "photos", 24)
    first, *others = [Image.open(photo) for photo in photos[:8]]
    first.save(folder / "clip.gif", save_all=True, append_images=others, duration=100)
    painting.rename(folder / "painting.png")
    loss_weights.rename(folder / "narrow.safetensors")
    torch.manual_seed(0)
    trunk = StyleNetwork(styles=2, sizes=2, init_features=4, num_residuals=1)
    recipe = {"style_sizes": [64, 96], "style_weights": [3], "content_layers": ["relu2_2"], "reg_weight": 7}
    save_network(folder / "trunk.safetensors", trunk, {"styles": [{"name": "a"}, {"name": "b"}], "recipe": recipe})
    save_network(folder / "tiny.safetensors", StyleNetwork(init_features=4, num_residuals=1), {})
    return folder


class Command:
    """A command line that runs in a folder, in a process group of its own, as a shell starts it."""

    def __init__(self, line, folder):
        self.errors = folder.parent / f"{folder.name}.errors"
        arguments = (shlex.split(line), str(folder), str(self.errors))
        self.process = FORKSERVER.Process(target=run_in_folder, args=arguments)
        self.process.start()
        while not self.errors.exists():  # until it is in its group
            time.sleep(0.01)

    def interrupt(self):
        """Ctrl-C, which a terminal sends to the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def status(self):
        self.process.join(120)
        assert "Traceback" not in self.errors.read_text(), self.errors.read_text()
        return self.process.exitcode


def run_in_folder(arguments, folder, errors):
    os.setpgid(0, 0)
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    run_as_process(arguments, {}, errors)


@pytest.mark.release
@pytest.mark.trains
@pytest.mark.timeout(900)  # eleven runs
@pytest.mark.parametrize("name", COMMANDS)
def test_the_same_command_finishes_what_ctrl_c_broke_off(inputs, tmp_path, name):
    line, result = COMMANDS[name]

    def fresh(folder):
        return Path(shutil.copytree(inputs, tmp_path / folder))

    whole = fresh("whole")
    command, began = Command(line, whole), time.monotonic()
    assert command.status() == 0, command.errors.read_text()
    took = time.monotonic() - began
    statuses = []
    for place in PLACES:
        folder = fresh(f"at{place}")
        command = Command(line, folder)
        time.sleep(place * took)
        if command.process.is_alive():
            command.interrupt()
        statuses.append(command.status())
        if statuses[-1] == INTERRUPTED:
            again = Command(line + RESUME.get(name, ""), folder)
            assert again.status() == 0, again.errors.read_text()
        assert files_of(folder) == files_of(whole)
        assert (folder / result).stat().st_size > 0
    assert set(statuses) <= {0, INTERRUPTED} and statuses.count(INTERRUPTED) >= 2, statuses


def files_of(folder):
    """The files below a folder but for a training's logs, whose names have the time in them."""
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and "tfevents" not in path.name}
