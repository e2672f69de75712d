import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "training/on_gpu.sh"
TRAINING = """#!/usr/bin/env bash
# Python as the script uses it: for the number of iterations, and for a training of a second.
if [[ $1 == - ]]; then echo 100; exit; fi
while (($#)); do
  case $1 in --sample-path) run=$2 ;; --model-path) model=$2 ;; esac
  shift
done
mkdir -p "$run"
echo "5.0 images/s" > "$run/train.log"
[[ $run == */run ]] || exit 0
echo checkpoint > "$run/checkpoint.pt"
/bin/sleep 1
echo weights > "$model"
"""
DISK = """#!/usr/bin/env bash
# Splits a file; the disk is full as often as the file ``failures`` has lines.
if [[ -s failures ]]; then sed -i 1d failures; exit 1; fi
exec {split} "$@"
"""


@pytest.fixture
def script(tmp_path):
    """Makes a function that runs the script in a copy of the repository, with Python and programs in others' place."""
    (tmp_path / "repository/training").mkdir(parents=True)
    (tmp_path / "temporary").mkdir()
    copy = shutil.copy(SCRIPT, tmp_path / "repository/training")

    def run(*arguments, python=sys.executable, **programs):
        (tmp_path / "bin").mkdir(exist_ok=True)
        for name, content in programs.items():
            (tmp_path / "bin" / name).write_text(content)
            (tmp_path / "bin" / name).chmod(0o755)
        environment = os.environ | {
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
            "TMPDIR": f"{tmp_path}/temporary",
            "PYTHON": python,
        }
        return subprocess.run([copy, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=60)

    return run


def train(script, tmp_path, failures):
    """Runs a training of which so many copies fail, one tried every tenth of a second."""
    (tmp_path / "repository/failures").write_text("full\n" * failures)
    programs = {"sleep": "#!/bin/sh\nexec /bin/sleep 0.1\n", "split": DISK.format(split=shutil.which("split"))}
    return script(1, python="trains", trains=TRAINING, **programs)


def test_a_copy_that_fails_is_made_again(script, tmp_path):
    ended = train(script, tmp_path, 1)
    assert ended.returncode == 0 and ended.stderr.count("failed; trying again in a minute") == 1
    out = tmp_path / "repository/gpu/out"
    assert sorted(each.name for each in out.iterdir()) == ["checkpoint.pt.00", "styles.safetensors", "train.log"]
    assert (out / "checkpoint.pt.00").read_text() == "checkpoint\n"
    assert not list((tmp_path / "temporary").iterdir())


def test_what_cannot_be_copied_at_the_end_is_kept(script, tmp_path):
    ended = train(script, tmp_path, 1000)
    (kept,) = (tmp_path / "temporary").glob("*/run")
    assert ended.returncode == 1 and f"checkpoint and weights are in {kept}\n" in ended.stderr
    assert (kept / "checkpoint.pt").read_text() == "checkpoint\n"
    assert not list((tmp_path / "repository/gpu/out").glob("checkpoint*"))


def test_what_is_packed_is_what_was_given_last(script, tmp_path):
    photos, paintings, loss = tmp_path / "photos", tmp_path / "paintings", tmp_path / "loss.safetensors"
    loss.touch()
    for name, side in {"a/one.png": 20, "b/one.png": 30, "b/two.jpg": 40}.items():
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        turned = Image.Exif()
        turned[0x0112] = 6  # to be turned by 90°
        Image.effect_noise((side, 10), 80).save(photos / name, exif=turned)
    paintings.mkdir()
    (paintings / "old.png").touch()
    assert script("pack", photos, paintings, loss).returncode == 0
    packed = {file: Image.open(file) for file in (tmp_path / "repository/gpu/photos").rglob("*") if file.is_file()}
    assert sorted(image.size for image in packed.values()) == [(10, 20), (10, 30), (10, 40)]
    assert {image.format for image in packed.values()} == {"JPEG"}
    assert {file.name for file in packed} == {"one.png", "two.jpg"}  # by which they belong to a split

    (paintings / "old.png").rename(paintings / "new.png")
    (photos / "b/one.png").unlink()
    assert "2 photos at quality 90" in script("pack", photos, paintings, loss).stdout
    left = [file.name for file in (tmp_path / "repository/gpu").rglob("*") if file.is_file()]
    assert sorted(left) == ["loss_network.safetensors", "new.png", "one.png", "two.jpg"]
