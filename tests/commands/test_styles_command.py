import json
import os
import shutil
from pathlib import Path

import pytest

from perceptual.client.addresses import RunningServer
from perceptual.errors import ServerError
from perceptual.inference.metadata import shipped_weights, styles_in
from perceptual_training.settings import read_recipe


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A folder without networks of one's own, on a machine without a server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_what_ships_is_listed_with_its_paintings(run, nowhere, weights):
    (nowhere / "networks").mkdir()
    shutil.copy(weights, nowhere / "networks/mine.safetensors")
    listed = {each["name"]: each for each in json.loads(run("styles", "--json")[1])}
    styles = [each["name"] for each in styles_in(shipped_weights()["styles"])]
    assert len(styles) >= 32 and listed.keys() == {*styles, "mine"}
    assert listed["mine"] == {"name": "mine", "where": "networks/mine.safetensors"}
    scream = listed["the_scream"]
    assert (scream["title"], scream["artist"], scream["year"]) == ("The Scream", "Edvard Munch", "1893")
    assert scream["where"] == "styles, styles_fast" and Path(scream["picture"]).name == "the_scream.jpg"
    status, out, _ = run("styles")
    assert status == 0 and "The Scream, 1893" in out and "networks/mine.safetensors" in out


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_listed(run, nowhere, weights):
    (nowhere / "networks").mkdir()
    (nowhere / "networks/broken.safetensors").write_text("junk")
    shutil.copy(weights, nowhere / "networks/mine.safetensors")
    status, out, err = run("styles", "--json")
    assert status == 0 and json.loads(out)[-1] == {"name": "mine", "where": "networks/mine.safetensors"}
    assert err.startswith("networks/broken.safetensors is not a safetensors file") and err.count("\n") == 1


def test_every_style_that_ships_tells_its_painting():
    told = [style for file in shipped_weights().values() for style in styles_in(file)]
    assert told and all(style.keys() >= {"title", "artist", "year"} for style in told)


def test_a_server_that_is_named_must_be_there(run, nowhere):
    assert run("styles", "--port", "1")[2] == (
        "perceptual: no server is running on port 1; start one with: perceptual serve\n"
    )


def test_what_a_server_holds_is_listed(run, server):
    port = server.address.inference_url.rsplit(":", 1)[1]
    listed = json.loads(run("styles", "--json", "--port", port)[1])
    assert listed[-1] == {"name": "tiny", "where": "/predictions/tiny"}


def test_a_model_that_does_not_answer_is_told_and_the_others_are_listed(run, nowhere, monkeypatch):
    def without_workers(self, name):
        if name == "paused":
            raise ServerError("paused has no worker")
        return {"styles": [{"name": "tiny"}]}

    monkeypatch.setattr("perceptual.client.management.ManagementClient.models", lambda self: ["paused", "tiny"])
    monkeypatch.setattr("perceptual.client.management.ManagementClient.capabilities", without_workers)
    RunningServer(os.getpid(), "http://127.0.0.1:1", "http://127.0.0.1:2", "", None, "logs").announce(1)
    status, out, err = run("styles", "--json")
    assert (status, err) == (0, "paused does not tell its styles: paused has no worker\n")
    assert json.loads(out)[-1] == {"name": "tiny", "where": "/predictions/tiny"}


def test_a_server_that_does_not_answer_is_told_and_what_ships_is_listed(run, nowhere):
    RunningServer(os.getpid(), "http://127.0.0.1:1", "http://127.0.0.1:2", "", None, "logs").announce(1)
    status, out, err = run("styles", "--json")
    assert status == 0 and "http://127.0.0.1:2" in err and err.count("\n") == 1
    assert json.loads(out)[0]["where"] == "styles, styles_fast"
    assert run("styles", "--port", "1")[0] == 1  # it was named


def test_a_recipe_that_ships_is_found_by_its_name(run):
    assert read_recipe(Path("the_scream"))["style-image"].resolve().is_file()
    status, _, err = run("train", "style", "--recipe", "the_screm", "--content-dir", ".")
    assert status == 1 and err.startswith(
        "perceptual: recipe the_screm: no such file, and no recipe of that name ships"
    )
    assert err.endswith("; did you mean the_scream?\n")
