"""The commands and examples of README and docs run, here with options that make them cheap."""

import contextlib
import io
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from training_fixtures import make_photos

from perceptual.commands import build_parser
from perceptual.inference.networks import StyleNetwork, SuperResolutionNetwork
from perceptual.inference.styles import read_trunk, save_style
from perceptual.inference.weights import save_network

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
STYLIZING, LEARNING, TRAINING, SERVING, PYTHON, EXCHANGE = (
    README[README.index(f"\n## {title}\n") :].partition("\n## ")[2].partition("\n## ")[0]
    for title in (
        "Stylize a photo",
        "Learn your own style",
        "Train a network",
        "Serve it",
        "Use it from Python",
        "Import and export",
    )
)
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
TRAIN = "--iterations 1 --image-size 32 --batch-size 1 --num-workers 0 --samples 1 --device cpu --compile no"
LOSSES = "--loss-weights narrow.safetensors"
CHEAP = {  # the last wins
    "train style --trunk": f"{TRAIN} {LOSSES}",
    "train styles": f"{TRAIN} --loss-weights narrow.safetensors --style-sizes 64 96",
    "train style": f"{TRAIN} --loss-weights narrow.safetensors --style-size 32",
    "train super-resolution": f"{TRAIN} {LOSSES}",
    "train all": f"{TRAIN} --loss-weights narrow.safetensors --recipes recipes",
    "learn": f"{TRAIN} {LOSSES} --loss-network vgg16",
    "optimize": f"--iterations 1 --max-size 32 --style-size 32 --device cpu {LOSSES}",
    "evaluate style": f"--sizes 32 --iterations 1 2 --photos 1 --split all --device cpu {LOSSES}",
    "evaluate super-resolution": f"--device cpu {LOSSES}",
    "stylize": "--engine eager",
    "upscale": "--engine eager",
    "gallery": "--engine eager",
}


def code(language, section):
    """The blocks of a language in a section, one after another."""
    return "".join(re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL))


def commands(section):
    """Complete command lines of ``perceptual`` in a section, in blocks and in the text, in order."""
    for block, span in re.findall(r"^```bash\n(.*?)^```|`(perceptual [^`]+)`", section, re.MULTILINE | re.DOTALL):
        for line in (block.replace("\\\n", " ") or span.replace("\n", " ")).splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["perceptual"] and any(word[0] != "-" and re.search(r"[./]|mine", word) for word in words):
                yield words[1:]


def cheap(words):
    """The command line with what makes it cheap."""
    options = next((CHEAP[start] for start in CHEAP if " ".join(words).startswith(start)), "")
    return [*words, *options.split()]


@pytest.fixture
def folder(tmp_path, photos, paintings, loss_weights, small_samples, monkeypatch):
    """A current folder with the files that the README names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # there is no server
    monkeypatch.setenv("MPLBACKEND", "agg")
    Path("training").symlink_to(ROOT / "training")
    make_photos(Path("sharp_photos"), 2)
    make_photos(Path("holiday"), 1)
    shutil.copy(next(Path("holiday").rglob("*.png")), "photo.jpg")  # a PNG all the same, as read by content
    shutil.copy(paintings / "stripes.png", "painting.jpg")
    Path("recipes").mkdir()
    Path("recipes/tiny.toml").write_text("upscale-factor = 4\nloss = 'pixel'\ninit-features = 4\nnum-residuals = 0\n")
    return tmp_path


@pytest.mark.trains
@pytest.mark.release
def test_commands_of_training(folder, run):
    lines = [line for section in (STYLIZING, LEARNING, TRAINING) for line in commands(section)]
    assert len(lines) > 10
    for words in lines:
        status, out, errors = run(*cheap(words))
        assert status == 0, f"{shlex.join(words)}\n{out}{errors}"
    assert {file.stem for file in Path("networks").iterdir()} >= {"painting", "mine", "better", "many", "mine_x4"}
    for picture in ("mixed.jpg", "sheet.jpg", "out.png", "crisp.jpg"):
        Image.open(picture).load()


@pytest.fixture
def networks(tmp_path, photo, monkeypatch):
    """A current folder with tiny networks of the names in the README, before which those that ship do not count."""
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(photo)
    torch.manual_seed(3)  # not the trunk of the network that the server has
    trunk = Path("networks/styles.safetensors")
    network = StyleNetwork(styles=2, init_features=4, num_residuals=1)
    save_network(trunk, network, {"styles": [{"name": "starry_night"}, {"name": "udnie"}]})
    save_style(Path("networks/mine.safetensors"), 1 + network.styles[0].detach().numpy(), read_trunk(trunk).trunk, {})
    upscaler = SuperResolutionNetwork(scale=4, init_features=4, num_residuals=1)
    save_network(Path("networks/super_resolution_x4.safetensors"), upscaler, {"name": "x4"})
    shutil.copy(ROOT / "build_mar.sh", tmp_path)


@pytest.fixture
def on_path(monkeypatch):
    """The installed ``perceptual``, where scripts look for it."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")


@pytest.fixture
def unregistered(server, management):
    """Removes at the end what was registered."""
    yield
    for name in management.models().keys() - {"tiny"}:
        management.unregister(name)
        (server.model_store / f"{name}.mar").unlink(missing_ok=True)


def replaced(script, stated):
    """A script with some of its text replaced, all of which is there."""
    for old, new in stated.items():
        assert old in script
        script = script.replace(old, new)
    return script


def bash(script):
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], check=True, timeout=250)


@pytest.mark.usefixtures("networks", "on_path", "unregistered")
def test_commands_of_serving_and_python(server, management):
    here = {
        "\nperceptual serve\n": "\nperceptual models register styles\n",  # of the server that there is
        "http://127.0.0.1:8080": server.address.inference_url,
    }
    bash(replaced(code("bash", SERVING), here))
    assert len(management.ready_workers("styles")) == 2
    sizes = {name: Image.open(name).size for name in ("stylized.jpg", "stylized.png", "large.jpg")}
    assert sizes == {"stylized.jpg": (64, 48), "stylized.png": (64, 48), "large.jpg": (256, 192)}
    Path("stylized.jpg").unlink()
    values = {}
    exec(compile(code("python", PYTHON), "README.md", "exec"), values)
    assert values["batch"].shape == (4, 3, 256, 256)
    assert Image.open("stylized.jpg").size == (64, 48)


@pytest.mark.release
@pytest.mark.usefixtures("networks")
def test_commands_that_need_no_server(tmp_path, run, monkeypatch):
    for room in ("exchange", "video"):
        monkeypatch.syspath_prepend(ROOT / "tests" / room)
    from other_projects import random_weights
    from video_files import make_clip

    torch.save(random_weights("pytorch-examples"), "mosaic.pth")
    make_clip(tmp_path / "clip.mp4")
    make_photos(Path("holiday"), 1)
    for words in (*commands(PYTHON), *commands(EXCHANGE)):
        if words[0] != "bulk":  # which needs a bucket
            status, out, errors = run(*cheap(words))
            assert status == 0, f"{shlex.join(words)}\n{out}{errors}"
    made = ("stylized.mp4", "networks/mosaic.safetensors", "udnie.onnx")
    assert [each for each in made if not Path(each).exists()] == []


@pytest.mark.release
@pytest.mark.usefixtures("networks", "on_path", "unregistered")
def test_commands_of_operations(server, management):
    save_network(Path("networks/mine.safetensors"), StyleNetwork(init_features=4, num_residuals=1), {})
    here = {
        "perceptual serve --model-store model_store --port 8080 ": "true",  # there is a server
        "perceptual status --watch": "timeout 5 perceptual status --watch || test $? = 124",
    }
    elsewhere = "perceptual status --url http://10.0.0.7:8081 --key-file key_file.json"
    assert elsewhere in OPERATIONS
    bash(
        replaced(code("bash", OPERATIONS), here)
        + f"perceptual status --url {server.address.management_url} --key-file {server.address.key_file}\n"
        + "".join(re.findall(r'`(eval "\$\(perceptual completion bash\)")`', OPERATIONS))
    )
    model = management.describe("mine")
    assert (model.version, len(management.ready_workers("mine"))) == ("2.0", 2)


@pytest.mark.slow
def test_every_command_of_the_docs_has_its_options():
    below = (file for room in ("docs", "models", "training") for file in (ROOT / room).rglob("*.md"))
    files = [*(file for file in ROOT.glob("*.md") if file.name != "CHANGELOG.md"), *below]
    found = 0
    for file in files:
        blocks = re.findall(r"^```bash\n(.*?)^```|`([^`]*perceptual [^`]+)`", file.read_text("utf-8"), re.M | re.S)
        lines = [line for block, span in blocks for line in (block.replace("\\\n", " ") or one_line(span)).splitlines()]
        for words in (each for line in lines for each in re.findall(r"(?:^|\$\()perceptual ([^|)>&]+)", line)):
            error = refused(shlex.split(words, comments=True))
            # What a sentence does not need it may leave out.
            assert error is None or re.search("are required|expected one argument", error), f"{file}: {words}: {error}"
            found += 1
    assert found > 80


def one_line(span):
    return " ".join(span.split())


def refused(words):
    """What the parser says against a command line, or None."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            build_parser(next(iter(words), None)).parse_args(words)
        except SystemExit as end:  # or it has printed its help
            return errors.getvalue() if end.code else None
    return None
