"""The commands as people type them: a process of their own, a shell, a real TorchServe."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import requests
from PIL import Image

import perceptual
from perceptual.commands import main
from perceptual.inference.images import decode, encode, from_pil
from perceptual.inference.sheets import LINE

BIN = Path(sys.executable).parent


@pytest.fixture
def environment(tmp_path):
    """Finds the installed command, and notes running servers down where no other is."""
    return os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "XDG_RUNTIME_DIR": str(tmp_path)}


@pytest.mark.serves
def test_serve_prints_commands_that_work_and_ctrl_c_ends_it(model_store, photo, weights, environment, tmp_path):
    command = ["perceptual", "serve", "tiny", "--model-store", str(model_store), "--port", "0"]
    heed_ctrl_c = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
    serving = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_ctrl_c
    )
    try:
        lines = []
        for line in serving.stdout:
            lines.append(line.strip())
            if line.startswith("Ctrl-C"):
                break
        assert any(line.startswith("inference   http://127.0.0.1:") for line in lines)
        (page,) = (line.removeprefix("page").strip() for line in lines if line.startswith("page "))
        assert "<title>perceptual</title>" in requests.get(page).text
        (tmp_path / "photo.jpg").write_bytes(photo)
        pasted = [line for line in lines if line.startswith(("TOKEN=", "curl"))]
        assert len(pasted) == 3
        done = subprocess.run(
            ["bash", "-ec", "\n".join(pasted)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert '"modelName": "tiny"' in done.stdout
        with Image.open(tmp_path / "tiny.jpg") as result:
            assert (result.format, result.size) == ("JPEG", (64, 48))
    finally:
        serving.send_signal(signal.SIGINT)
        assert serving.wait(timeout=60) == 0
    assert not list(tmp_path.glob("torchserve-perceptual/*")), "the server is still noted down as running"


@pytest.mark.slow
def test_serve_without_archives_is_one_line(environment, tmp_path):
    done = subprocess.run(
        ["perceptual", "serve", "--model-store", str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == f"perceptual: there are no archives in {tmp_path}; build them with: perceptual package\n"


@pytest.mark.serves
@pytest.mark.usefixtures("real_auto")
def test_demo_writes_pictures_and_a_contact_sheet(photo, weights, upscaler, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("perceptual.inference.metadata.shipped_weights", lambda: {"tiny": weights, "tiny_x4": upscaler})
    (tmp_path / "photo.png").write_bytes(photo)
    output = tmp_path / "demo"
    assert main(["demo", str(tmp_path / "photo.png"), "-o", str(output)]) == 0
    said = capsys.readouterr().out
    assert (
        f"packaged {output}/demo.mar" in said
        and "over HTTP" in said
        and f"perceptual serve --model-store {output} " in said
        and "--model tiny -o out.jpg" in said
    )
    assert main(["demo", str(output / "tiny.jpg"), "-o", str(output)]) == 1
    assert "would be overwritten" in capsys.readouterr().err
    expected = encode(from_pil(perceptual.load(weights, device="cpu").stylize(photo)))
    difference = decode((output / "tiny.jpg").read_bytes()).rgb.float() - decode(expected).rgb.float()
    assert difference.abs().mean() < 0.5
    with Image.open(output / "tiny_x4.jpg") as enlarged:
        assert enlarged.size == (4 * 64, 4 * 48)
    with Image.open(output / "contact_sheet.jpg") as sheet:  # the photo, both results, and what super-resolution got
        assert sheet.size == (4 * 512 + 5 * 6, 384 + LINE + 2 * 6)
