"""The fixtures that all tests share."""

import io
import os
import shutil
import subprocess
import tempfile
import textwrap
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from training_fixtures import loss_weights, painting, paintings, photos, settings, small_samples, tiny  # noqa: F401

from perceptual.inference import engines
from perceptual.inference.networks import StyleNetwork, SuperResolutionNetwork
from perceptual.inference.weights import save_network

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def plain_auto():
    """Makes the engine ``auto`` plain PyTorch in this process, as OpenVINO takes seconds for each network."""
    with pytest.MonkeyPatch.context() as patch:
        chosen = engines.prefers_openvino
        patch.setattr(engines, "prefers_openvino", lambda device: False)
        yield chosen


@pytest.fixture
def real_auto(plain_auto, monkeypatch):
    """Lets the engine ``auto`` be what it is everywhere else, such as in a server's workers."""
    monkeypatch.setattr(engines, "prefers_openvino", plain_auto)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """The weights file of a tiny random network, ``tiny.safetensors``."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    provenance = {"version": "1.2", "description": "für Tests"}
    save_network(file, StyleNetwork(init_features=4, num_residuals=1), provenance)
    return file


@pytest.fixture(scope="session")
def upscaler(tmp_path_factory):
    """The weights file of a tiny random network of super-resolution, ``tiny_x4.safetensors``."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("upscaler") / "tiny_x4.safetensors"
    save_network(file, SuperResolutionNetwork(scale=4, init_features=4, num_residuals=1, output="tanh"), {})
    return file


@pytest.fixture(scope="session")
def blended(tmp_path_factory):
    """The file of a tiny random super-resolution network with two sets of weights, ``tiny_x2.safetensors``."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("blended") / "tiny_x2.safetensors"
    network = SuperResolutionNetwork(scale=2, init_features=4, num_residuals=1, upsampling="shuffle", blended=True)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_network(file, network, {})
    return file


@pytest.fixture(scope="session")
def photo():
    """An encoded photo, 64 × 48."""
    buffer = io.BytesIO()
    Image.effect_noise((64, 48), 80).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
    if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="session")
def without_package(tmp_path_factory):
    """Environment variables under which Python finds this package in an archive only, not where it is installed."""
    folder = tmp_path_factory.mktemp("without_package")
    (folder / "sitecustomize.py").write_text(
        textwrap.dedent(f"""
            import sys
            from importlib.machinery import PathFinder


            class ArchivedOnly:
                def find_spec(name, path=None, target=None):
                    if path is None and name.startswith("perceptual"):
                        kept = [each for each in sys.path if "-packages" not in each and each != {str(ROOT)!r}]
                        if spec := PathFinder.find_spec(name, kept):
                            return spec
                        raise ModuleNotFoundError(f"{{name}} is hidden", name=name)


            sys.meta_path.insert(0, ArchivedOnly)
        """)
    )
    return {"PYTHONPATH": str(folder)}


@pytest.fixture(scope="session")
def model_store(weights, tmp_path_factory):
    """A model store with the archive of the tiny network, ``tiny.mar``."""
    from perceptual.archives.build import package

    folder = tmp_path_factory.mktemp("model_store")
    package(weights, folder)
    return folder


@pytest.fixture(scope="session")
def server(model_store, without_package, tmp_path_factory):
    """A TorchServe that serves ``tiny``; its workers do not find the installed package."""
    from perceptual.serving.server import Server

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        store = tmp_path_factory.mktemp("served") / "model_store"  # its own, as tests register what they like
        shutil.copytree(model_store, store)
        with patch.context() as hidden:  # for TorchServe alone, not for what other tests start
            hidden.setenv("PYTHONPATH", os.pathsep.join(without_package.values()))
            running = Server(store, port=0, page_status=True).start()
        with running:
            yield running


@pytest.fixture(scope="module")
def management(server):
    """A client of its management API."""
    with server.address.management() as management:
        yield management


@pytest.fixture(params=["aot_eager", pytest.param("inductor", marks=pytest.mark.release)])
def compiler(request, monkeypatch):
    """What torch.compile makes of the graphs it finds: the same operations, in seconds, or new code, in a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=request.param))
    torch._dynamo.reset()
    return request.param


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs a command line; gives its exit status, output and errors."""
    from perceptual.commands import main

    monkeypatch.setattr(tempfile, "tempdir", tempfile.gettempdir())  # a training gives its process another

    def invoke(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return invoke
