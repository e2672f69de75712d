"""What holds for every command: how it is called, and what a mistake is answered with."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import perceptual
from perceptual.files import WHEN_FULL


def test_a_module_is_the_command_line():
    command = [sys.executable, "-m", "perceptual", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"torchserve-perceptual {perceptual.__version__}\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("stylise x.jpg", "perceptual: there is no command stylise; did you mean stylize? (see perceptual --help)"),
        (
            "stylize x.jpg --modle m -o y.jpg",
            "perceptual stylize: there is no option --modle; did you mean --model? (see perceptual stylize --help)",
        ),
        (
            "train style --stile-image=x.jpg",
            "perceptual train style: there is no option --stile-image; did you mean --style-image? "
            "(see perceptual train style --help)",
        ),
        (
            "models lits",
            "perceptual models: there is no command lits; did you mean list? (see perceptual models --help)",
        ),
        ("inspect a b", "perceptual inspect: b is an unexpected argument (see perceptual inspect --help)"),
        ("inspect a -q", "perceptual inspect: there is no option -q (see perceptual inspect --help)"),
        (
            "models scale x --workers two",
            "perceptual models scale: argument --workers: expected a whole number of at least 0, or auto, got 'two' "
            "(see perceptual models scale --help)",
        ),
    ],
)
def test_a_mistake_is_named_with_what_may_be_meant(run, line, message):
    assert run(*line.split()) == (2, "", message + "\n")


@pytest.mark.slow
def test_a_photo_s_name_may_begin_with_a_dash(run, weights, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("-x.png").write_bytes(photo)
    arguments = ("--model", weights, "-o", "out.png")
    for line in (("-x.png", *arguments), (*arguments, "--", "-x.png")):
        assert run("stylize", *line)[0] == 0
        assert Path("out.png").exists()
        Path("out.png").unlink()


def test_a_full_disk_ends_a_command_and_leaves_whole_pictures(run, weights, photo, small_disk, tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(
        "perceptual.inference.predictor.Predictor.stylize_pictures",
        lambda self, pictures, _: tried.append(1) or pictures,
    )
    (tmp_path / "in").mkdir()
    for number in range(30):
        (tmp_path / "in" / f"{number:02}.png").write_bytes(photo)
    options = ("--model", weights, "--format", "png", "--device", "cpu")
    status, out, err = run("stylize", tmp_path / "in", *options, "-o", small_disk)
    made = sorted(file.name for file in small_disk.iterdir())
    assert 0 < len(made) < 20 and len(tried) == len(made) + 1
    reason = f"No space left on device; {WHEN_FULL}"
    assert (status, out) == (1, f"{len(made)} of 30 photos stylized, in {small_disk}; stopped\n")
    assert err == f"perceptual: cannot write {small_disk}/{len(made):02}.png: {reason}\n"
    assert made == [f"{number:02}.png" for number in range(len(made))]
    assert all(Image.open(small_disk / name).convert("RGB").size == (64, 48) for name in made)


@pytest.mark.slow
def test_a_dash_is_standard_input_and_output(weights, photo, tmp_path, monkeypatch, capsysbinary):
    from perceptual.commands import main

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(photo)))
    assert main(["stylize", "-", "--model", str(weights), "-o", "-", "--format", "png", "--device", "cpu"]) == 0
    captured = capsysbinary.readouterr()
    expected = perceptual.load(weights, device="cpu").stylize(photo)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(captured.out))), np.asarray(expected))
    assert captured.err == b"1 of 1 photos stylized, in -\n"
    assert main(["stylize", "-", str(tmp_path), "--model", str(weights), "-o", str(tmp_path)]) == 1
    assert b"name no other photo, and no folder" in capsysbinary.readouterr().err


def test_a_shell_completes_names_of_networks_and_archives(run, tmp_path):
    script = run("completion", "bash")[1]
    for name in ("networks/mine.safetensors", "model_store/served.mar"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()

    def completed(*words):
        ask = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _shtab_perceptual; echo ${{COMPREPLY[@]}}"
        bash = subprocess.run(["bash", "-c", f"{script}\n{ask}"], cwd=tmp_path, capture_output=True, text=True)
        return bash.stdout.split()

    assert completed("perceptual", "stylize", "--model", "m") == ["mine", "model_store"]
    assert completed("perceptual", "stylize", "--model", "sty") == ["styles", "styles_fast"]
    assert completed("perceptual", "models", "scale", "s") == ["served"]
    assert "--strength" in completed("perceptual", "stylize", "--str")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_the_same(run, shell):
    status, script, _ = run("completion", shell)
    assert status == 0 and "styles" in script and "model_store" in script
