import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image
from serving_fixtures import wait_for

from perceptual.archives.build import package, repackage
from perceptual.archives.manifest import find_archives
from perceptual.commands.serve import headers
from perceptual.errors import UnknownStyle
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.styles import read_weights, save_style
from perceptual.inference.weights import save_network
from perceptual.serving.learned import add_style
from perceptual.serving.registration import register, unregister
from perceptual.serving.server import Server
from perceptual.serving.status import read_status
from perceptual_training.data import find_photos


@pytest.fixture
def trunk(tmp_path):
    torch.manual_seed(5)  # another trunk than that of tiny
    network = StyleNetwork(styles=2, init_features=4, num_residuals=1)
    torch.nn.init.normal_(network.styles)
    recipe = {"style_sizes": [64], "content_layers": ["relu2_2"]}
    told = {"styles": [{"name": "dots"}, {"name": "waves"}], "recipe": recipe}
    save_network(tmp_path / "trunk.safetensors", network, told)
    return tmp_path / "trunk.safetensors"


def learned(trunk, name, digest=None):
    weights = read_weights(trunk)
    row = np.random.default_rng(1).standard_normal(weights.tensors["styles"].shape[1:])
    save_style(trunk.with_name(f"{name}.safetensors"), row, digest or weights.trunk, {})
    return trunk.with_name(f"{name}.safetensors")


def test_a_style_is_added_to_the_served_trunk_and_no_request_is_lost(server, management, trunk, photo, run):
    port = urlsplit(server.address.inference_url).port
    before = {file.name for file in server.model_store.iterdir()}
    mine = learned(trunk, "mine")
    status, _, err = run("models", "register", mine, "--port", port)
    assert status == 1 and "no served model has the trunk" in err
    register(server.address, trunk)
    served = SimpleNamespace(management=server.management, archives=find_archives(server.model_store, ["trunk"]))
    assert headers(served) == {"trunk": ' -H "X-Style: dots"'}  # in the command that `perceptual serve` prints
    with server.address.inference() as client:
        old = client.stylize(photo, "trunk", style="dots", format="png")
        status, _, err = run("models", "register", learned(trunk, "waves"), "--port", port)
        assert status == 1 and "has a style waves already: choose another name" in err
        status, _, err = run("models", "register", learned(trunk, "other", "0" * 64), "--port", port)
        assert status == 1 and "no served model has the trunk" in err
        with pytest.raises(UnknownStyle):
            client.stylize(photo, "trunk", style="mine")
        assert [each.version for each in management.versions("trunk")] == ["1.0"]

        end, answers, lost = threading.Event(), [], []

        def ask():
            with server.address.inference() as other:
                while not end.is_set():
                    try:
                        answers.append(other.stylize(photo, "trunk", style="dots", format="png"))
                    except Exception as error:
                        lost.append(error)

        asker = threading.Thread(target=ask)
        asker.start()
        status, out, err = run("models", "register", mine, "--port", port)
        end.set()
        asker.join()
        assert status == 0 and out == "trunk 1.1 is ready at /predictions/trunk/1.1\n", err
        assert not lost and {*answers} == {old}
        assert client.stylize(photo, "trunk", style="mine", format="png") != old
    assert run("models", "register", mine, "--port", port)[:2] == (0, out)  # the very style is there already
    assert [each.version for each in management.versions("trunk")] == ["1.1"]
    management.unregister("trunk")
    for name in {file.name for file in server.model_store.iterdir()} - before:
        (server.model_store / name).unlink()


@pytest.fixture
def store(server, management):
    """The server's model store; what a test registers beside tiny is removed after it, with its archives."""
    before = {*server.model_store.iterdir()}
    yield server.model_store
    for name in management.models().keys() - {"tiny"}:
        management.unregister(name)
    for file in {*server.model_store.iterdir()} - before:
        file.unlink()


@pytest.fixture
def models(run, server):
    """Runs ``perceptual models`` against the tests' server."""
    return lambda *words: run("models", *words, "--port", server.ports.inference)


def archives_of(store):
    return sorted(file.name for file in store.glob("trunk*.mar"))


@pytest.mark.usefixtures("store")
def test_a_style_is_registered_by_its_name(management, models, trunk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("networks").mkdir()
    for file in (trunk, learned(trunk, "mine")):
        file.rename(Path("networks", file.name))
    assert models("register", "trunk")[0] == 0
    assert models("register", "mine")[1] == "trunk 1.1 is ready at /predictions/trunk/1.1\n"
    assert management.models().keys() == {"tiny", "trunk"}


@pytest.mark.usefixtures("store")
def test_a_network_of_several_styles_is_warmed_up_by_a_picture_in_one_of_them(server, trunk):
    counts = []  # since the server started: another test may have served a model of this name
    for _ in range(2):
        name, version = register(server.address, trunk)
        counts.append(read_status(server.address).find(name, version).replies)
        unregister(server.address, name)
    first, second = counts
    assert second == first | {"ok": first["ok"] + 1}  # an operator would take a refused request for a user's


@pytest.mark.usefixtures("store")
def test_two_models_with_the_trunk_are_told_with_the_cure(server, management, models, trunk, tmp_path):
    register(server.address, trunk)
    register(server.address, package(learned(trunk, "mine"), tmp_path).path)
    second = learned(trunk, "second")
    err = models("register", second)[2]
    assert err == (
        "perceptual: mine, trunk all have the trunk of second: serve the trunk in one model only; to remove another: "
        "perceptual models unregister NAME\n"
    )
    models("unregister", "mine")
    assert models("register", second)[0] == 0 and management.describe("trunk").version == "1.1"


def test_archives_of_replaced_versions_are_removed(server, store, models, trunk):
    register(server.address, trunk)
    for name in ("first", "second"):
        assert models("register", learned(trunk, name))[0] == 0
    assert archives_of(store) == ["trunk-1.2.mar", "trunk.mar"]  # the first was not built for a style
    other = store / ".snapshots/9000"  # of a server at another port, which is to start with this one
    other.mkdir(parents=True)
    entry = {"marName": "trunk-1.2.mar", "defaultVersion": True, "minWorkers": 1, "maxWorkers": 1}
    snapshot = {"models": {"trunk": {"1.2": entry}}}
    (other / "1.cfg").write_text(f"model_snapshot={json.dumps(snapshot)}\n")
    try:
        assert models("register", learned(trunk, "third"))[0] == 0
    finally:
        shutil.rmtree(store / ".snapshots")
    assert archives_of(store) == ["trunk-1.2.mar", "trunk-1.3.mar", "trunk.mar"]


@pytest.fixture
def named(trunk, tmp_path, monkeypatch):
    """A server that was started with ``trunk-1.1.mar``, which was built for a learned style."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    store = tmp_path / "named"
    first = package(trunk, store).path
    repackage(first, tmp_path, version="1.1", style=learned(trunk, "first")).path.rename(store / "trunk-1.1.mar")
    with Server(store, ["trunk-1.1"], port=0) as server:
        yield server


@pytest.mark.serves
def test_archives_that_a_server_may_start_with_stay(named, trunk, tmp_path):
    add_style(named.address, learned(trunk, "second"))
    assert archives_of(named.model_store) == ["trunk-1.1.mar", "trunk-1.2.mar", "trunk.mar"]
    other = replace(named.address, snapshots=str(tmp_path / "private"), named=[])  # its supervisor may restart it
    shutil.copytree(named.snapshots, other.snapshots)
    other.announce(9000)
    for name in ("third", "fourth"):
        add_style(named.address, learned(trunk, name))
    assert archives_of(named.model_store) == ["trunk-1.1.mar", "trunk-1.2.mar", "trunk-1.4.mar", "trunk.mar"]


def test_a_version_that_is_registered_on_purpose_stays(server, management, store, models, trunk):
    register(server.address, trunk)
    mine = learned(trunk, "mine")
    models("register", mine)
    register(server.address, store / "trunk.mar")  # to compare, or to go back
    assert models("register", learned(trunk, "more"), "--version", "1.0")[0] == 1
    assert models("register", mine)[1] == "trunk 1.1 is ready at /predictions/trunk/1.1\n"
    assert [each.version for each in management.versions("trunk")] == ["1.1", "1.0"]


@pytest.mark.parametrize("default", ["1.1", "1.2"])  # when it is killed: while 1.2 loads, or while 1.1 finishes
def test_a_killed_registration_is_completed_when_it_is_repeated(server, store, management, models, trunk, default):
    register(server.address, trunk)
    models("register", learned(trunk, "first"))
    second = learned(trunk, "second")
    command = [sys.executable, "-m", "perceptual", "models", "register", str(second)]
    with subprocess.Popen([*command, "--port", str(server.ports.inference)]) as process:
        wait_for(lambda: len(found := management.versions("trunk")) == 2 and found[0].version == default)
        process.kill()
    assert {each.version for each in management.versions("trunk")} == {"1.1", "1.2"}
    assert models("register", second)[1] == "trunk 1.2 is ready at /predictions/trunk/1.2\n"
    assert [each.version for each in management.versions("trunk")] == ["1.2"]
    assert archives_of(store) == ["trunk-1.2.mar", "trunk.mar"]


@pytest.fixture
def learn(run, trunk, photos, painting, loss_weights, tmp_path, monkeypatch):
    """Runs ``perceptual learn`` with six iterations, beside the painting."""
    monkeypatch.chdir(tmp_path)
    Path("stripes.jpg").write_bytes(painting.read_bytes())
    short = ("--iterations", 6, "--image-size", 32, "--num-workers", 0, "--samples", 2, "--device", "cpu")
    given = ("--trunk", trunk, "--content-dir", photos, "--loss-weights", loss_weights, *short)
    return lambda *more: run("learn", "stripes.jpg", *given, *more)


@pytest.mark.trains
def test_two_styles_added_at_the_same_time_are_both_served(server, management, trunk, photo):
    before = {file.name for file in server.model_store.iterdir()}
    register(server.address, trunk)
    archive = management.describe("trunk").archive
    management.unregister("trunk")
    management.register(archive, batch_size=3, max_batch_delay=20)
    styles = [learned(trunk, name) for name in ("first", "second")]
    commands = [
        [sys.executable, "-m", "perceptual", "models", "register", str(style), "--port", str(server.ports.inference)]
        for style in styles
    ]
    for process in [subprocess.Popen(command) for command in commands]:
        assert process.wait(120) == 0
    (served,) = management.versions("trunk")
    assert (served.version, served.batch_size, served.batch_delay) == ("1.2", 3, 20)
    with server.address.inference() as client:
        assert client.stylize(photo, "trunk", style={"first": 1, "second": 1})
    management.unregister("trunk")
    for name in {file.name for file in server.model_store.iterdir()} - before:
        (server.model_store / name).unlink()


def test_a_paused_model_stays_paused(server, management, trunk):
    before = {file.name for file in server.model_store.iterdir()}
    register(server.address, trunk)
    management.scale("trunk", 0)
    add_style(server.address, learned(trunk, "mine"))
    (served,) = management.versions("trunk")
    assert (served.version, served.wanted, served.workers) == ("1.1", 0, ())
    management.unregister("trunk")
    for name in {file.name for file in server.model_store.iterdir()} - before:
        (server.model_store / name).unlink()


def test_from_a_painting_to_a_served_picture_in_one_command(server, management, trunk, learn, photo, tmp_path):
    port = urlsplit(server.address.inference_url).port
    before = {file.name for file in server.model_store.iterdir()}
    status, _, err = learn("--port", port)
    assert status == 1 and "no served model has the trunk of stripes" in err
    assert not (tmp_path / "runs").exists()  # refused before anything was learned
    register(server.address, trunk)
    status, _, err = learn("--port", port, "--name", "waves")
    assert status == 1 and "has a style waves already" in err
    (tmp_path / "me.jpg").write_bytes(photo)
    status, out, err = learn("--port", port, "--photo", "me.jpg")
    assert status == 0, err
    assert "networks/stripes.safetensors is served: POST a photo to /predictions/trunk with style=stripes" in out
    with Image.open(tmp_path / "stripes_first.jpg") as picture:
        assert picture.size == (64, 48)
    (tmp_path / "stripes_first.jpg").unlink()  # as if it had been broken off before its first picture
    status, out, err = learn("--port", port, "--photo", "me.jpg", "--resume")
    assert status == 0 and (tmp_path / "stripes_first.jpg").exists(), err
    assert [each.version for each in management.versions("trunk")] == ["1.1"]
    (tmp_path / "stripes_first.jpg").unlink()
    for number, file in enumerate(training := find_photos(tmp_path / "photos", "train")):
        file.write_bytes(file.read_bytes()[:100])
        if number == 0:  # passed over, as in the training
            status, out, err = learn("--port", port, "--resume")
            assert status == 0 and Image.open(tmp_path / "stripes_first.jpg").size == (60, 48), err
            status, _, err = learn("--port", port, "--photo", file, "--name", "again")
            assert status == 1 and f"{file}: the image is truncated" in err
    status, _, err = learn("--port", port, "--name", "again")
    assert status == 1 and f"none of the photos in {tmp_path / 'photos'} can be read; the last: {training[-1]}" in err
    status, _, err = learn("--port", port, "--photo", "me.jpg", "--name", "again", "-o", "stripes_first.jpg")
    assert status == 1 and "stripes_first.jpg already exists" in err
    management.unregister("trunk")
    for name in {file.name for file in server.model_store.iterdir()} - before:
        (server.model_store / name).unlink()


@pytest.mark.trains
def test_a_painting_is_learned_without_a_server(learn, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    status, out, err = learn()
    assert status == 0, err
    assert "No server is running; to serve it:" in out and "perceptual models register networks/stripes" in out
    assert "  perceptual serve\n" in out  # by name it would be the archive without the styles learned before
    assert learn("--port", 9)[0] == 1  # a server that is named must be there
