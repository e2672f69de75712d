import importlib.util
import logging
import subprocess
import sys
import textwrap
import time
from itertools import cycle
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import perceptual
from perceptual.commands import main
from perceptual.errors import InvalidOption
from perceptual.inference import engines
from perceptual.inference.networks import StyleNetwork, SuperResolutionNetwork
from perceptual.inference.predictor import Predictor

CPU = torch.device("cpu")
SIZES = [(48, 64), (64, 64), (33, 70), (5, 9)]
needs_openvino = pytest.mark.skipif(not importlib.util.find_spec("openvino"), reason="needs the package openvino")


def networks():
    torch.manual_seed(0)
    upscaler = SuperResolutionNetwork(scale=4, init_features=8, num_residuals=1)
    nn.init.normal_(upscaler.layers[-1].weight, std=0.02)
    blended = SuperResolutionNetwork(scale=2, init_features=8, num_residuals=1, upsampling="shuffle", blended=True)
    for parameter in blended.parameters():
        nn.init.normal_(parameter, std=0.05)
    return {
        "blended": blended,
        "default": StyleNetwork(init_features=8, num_residuals=2),
        "paper": StyleNetwork(init_features=8, num_residuals=2, **StyleNetwork.presets["paper"]),
        "luma": StyleNetwork(init_features=8, num_residuals=1, in_channels=1),
        "super-resolution": upscaler,
    }


def assert_agrees(name, engine, sizes=SIZES):
    network = networks()[name].eval()
    expected, found = (Predictor(network, {}, device="cpu", engine=each) for each in ("eager", engine))
    for size in sizes:
        photos = torch.rand(2, 3, *size)
        distance = (found(photos) - expected(photos)).abs().mean() * 255
        assert distance < 1, f"{size}: {distance}"
    return found


@pytest.mark.slow
@needs_openvino
@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("bfloat16", sorted({False, engines.quick_in_bfloat16(CPU)}))
def test_openvino_agrees_with_eager(name, bfloat16, monkeypatch):
    monkeypatch.setattr(engines, "quick_in_bfloat16", lambda device: bfloat16)
    assert_agrees(name, "openvino")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["eager", pytest.param("openvino", marks=needs_openvino)])
def test_one_engine_runs_every_fidelity(engine):
    network = networks()["blended"].eval().requires_grad_(False)
    run = engines.build(engine, network, CPU)
    photo = torch.rand(1, 3, 80, 92)
    with torch.inference_mode():
        ends = [network.settled(fidelity)(photo) for fidelity in (0.0, 1.0)]
        assert (ends[0] - ends[1]).abs().mean() * 255 > 5
        for fidelity in (0.0, 0.4, 1.0):
            found = network(photo, torch.tensor([[fidelity]]), run)
            assert (found - network.settled(fidelity)(photo)).abs().mean() * 255 < 1


@pytest.mark.parametrize("engine", ["eager", pytest.param("openvino", marks=needs_openvino)])
@pytest.mark.slow
def test_one_engine_runs_every_style_as_each_image_asks(engine):
    torch.manual_seed(0)
    network = StyleNetwork(init_features=8, num_residuals=1, styles=3).eval()
    nn.init.uniform_(network.styles, 0.2, 2)
    run = engines.build(engine, network, CPU)
    photo, styles = torch.rand(1, 3, 80, 92), torch.cat([network.styles[2], network.style([0.5, 0.5, 0])])
    with torch.inference_mode():
        together = network(photo.expand(2, -1, -1, -1), styles, run)
        for output, style in zip(together, styles, strict=True):
            assert (output - network(photo, style[None])).abs().mean() * 255 < 1
            assert (output - network(photo, network.styles[1])).abs().mean() * 255 > 5


@needs_openvino
@pytest.mark.slow
def test_openvino_tells_nobody():
    program = """
        import sys
        sys.addaudithook(lambda event, arguments: sys.exit(event) if event.startswith("socket.") else None)
        from perceptual.inference import engines
        from perceptual.inference.networks import StyleNetwork
        engines.openvino(StyleNetwork(init_features=4, num_residuals=0))
        assert "openvino.tools.ovc" in sys.modules and not sys.modules["openvino_telemetry"]
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


@needs_openvino
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no list of threads")
def test_processes_of_one_thread_each_do_not_share_a_core():
    program = """
        import os, threading, torch
        from contextlib import suppress
        torch.set_num_threads(1)
        from perceptual.inference import engines
        from perceptual.inference.networks import StyleNetwork
        network = StyleNetwork(init_features=16)
        run = engines.openvino(network)
        photo, style, cores = torch.rand(1, 3, 256, 256), network.styles[0].detach(), os.sched_getaffinity(0)
        inference = threading.Thread(target=run, args=(photo, style))
        inference.start()
        while inference.is_alive():
            for thread in os.listdir("/proc/self/task"):
                with suppress(ProcessLookupError):  # it has ended
                    assert os.sched_getaffinity(int(thread)) == cores, "a thread is pinned"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


@pytest.mark.parametrize("name", networks())
def test_bfloat16_agrees_with_eager(name, monkeypatch):
    monkeypatch.setattr(engines, "quick_in_bfloat16", lambda device: True)
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert isinstance(assert_agrees(name, "auto").transform, engines.Checked)


def test_compiled_agrees_with_eager_and_is_compiled_once(compiler, monkeypatch, caplog):
    monkeypatch.setattr(engines, "COMPILE_SECONDS", 250)  # on a busy machine
    with caplog.at_level(logging.WARNING, engines.__name__):
        network = StyleNetwork(init_features=4, num_residuals=1, styles=2).eval()
        nn.init.uniform_(network.styles, 0.2, 2)
        metadata = {"provenance": {"styles": [{"name": "a"}, {"name": "b"}]}}
        found = Predictor(network, metadata, device="cpu", engine="compile")
    if reasons := [each.getMessage() for each in caplog.records if each.name == engines.__name__]:
        assert compiler == "inductor", reasons
        pytest.skip(reasons[0])
    expected = Predictor(network, metadata, device="cpu")
    with torch.compiler.set_stance("fail_on_recompile"):
        for size, style in zip([*SIZES, (64, 96), (101, 70), (80, 80), (16, 400)], cycle(["a", "b", {"a": 1, "b": 2}])):
            photos = torch.rand(2, 3, *size)
            compiled = found(photos, style=style)
            assert (compiled - expected(photos, style=style)).abs().mean() * 255 < 1
            found.stylize(Image.effect_noise(size[::-1], 80).convert("RGB"), style=style)


def fails(*args, **kwargs):
    raise RuntimeError("no C++ compiler\nand more")


@pytest.mark.parametrize(
    ("function", "reason"),
    [(fails, "no C++ compiler"), (lambda *inputs: time.sleep(5), "not done after 0.1 s")],
    ids=["fails", "is slow"],
)
def test_what_does_not_compile_is_run_as_it_is(function, reason, monkeypatch, caplog):
    monkeypatch.setattr(torch, "compile", lambda layers, dynamic: function)
    monkeypatch.setattr(engines, "COMPILE_SECONDS", 0.1)
    assert_agrees("default", "compile", SIZES[:1])
    assert caplog.messages == [f"torch.compile fails; running plain PyTorch: {reason}"]


@pytest.mark.usefixtures("real_auto")
def test_auto_is_openvino_and_eager_where_that_is_missing_or_fails(monkeypatch, caplog):
    monkeypatch.setattr(engines, "quick_in_bfloat16", lambda device: False)
    network = networks()["default"]
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert isinstance(engines.build("auto", network, CPU), engines.Eager) and not caplog.messages
    monkeypatch.setattr(engines, "find_spec", lambda name: name)
    with monkeypatch.context() as patch:
        patch.setattr(engines, "openvino", lambda network: [network])
        assert engines.build("auto", network, CPU) == [network]
    monkeypatch.setattr(engines, "openvino", fails)
    assert isinstance(engines.build("auto", network, CPU), engines.Eager)
    assert caplog.messages == ["OpenVINO fails; running plain PyTorch: no C++ compiler"]


def test_openvino_asked_for_where_it_cannot_be(weights, monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(InvalidOption, match="pip install openvino"):
        perceptual.load(weights, "cpu", engine="openvino")
    with pytest.raises(InvalidOption, match="openvino runs on the CPU, and the device is cuda:1"):
        engines.build("openvino", networks()["default"], torch.device("cuda:1"))


def test_what_overflows_is_run_again_in_float32():
    layers = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    nn.init.constant_(layers[0].weight, 3.4e38)  # above bfloat16's largest number, below float32's
    engine = engines.Eager(layers, CPU, bfloat16=True)
    images = torch.tensor([1.0, 0.5]).view(2, 1, 1, 1)
    with torch.inference_mode():
        assert not engine(images).isfinite().all()
        assert torch.equal(engines.Checked(engine, layers)(images), layers(images))


def test_engine_is_an_option_of_commands(weights, photo, tmp_path):
    (tmp_path / "photo.png").write_bytes(photo)
    command = ["stylize", str(tmp_path / "photo.png"), "--model", str(weights), "-o", str(tmp_path / "out.png")]
    assert main([*command, "--engine", "eager"]) == 0
    assert main([*command, "--engine", "steam"]) == 1


@needs_openvino
@pytest.mark.slow
def test_signals_are_survived_after_engines_have_ended():
    program = """
        import faulthandler, gc, os, signal
        from perceptual.inference import engines
        from perceptual.inference.networks import StyleNetwork
        faulthandler.enable()  # as signal handlers of Python, runs on the stack that is set aside for signals
        signal.signal(signal.SIGUSR1, lambda *arguments: print("survived"))
        network = StyleNetwork(init_features=4, num_residuals=0)
        first, second = engines.openvino(network), engines.openvino(network)
        del first
        gc.collect()
        del second
        gc.collect()
        os.kill(os.getpid(), signal.SIGUSR1)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "survived\n")
