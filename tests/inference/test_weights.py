import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from perceptual.errors import WeightsError
from perceptual.files import write_atomically
from perceptual.inference.metadata import FORMAT, find_distinct, find_weights, read_metadata, shipped_weights
from perceptual.inference.networks import StyleNetwork, SuperResolutionNetwork
from perceptual.inference.weights import load_network, save_network
from perceptual_models import NETWORKS

ROOT = Path(__file__).parents[2]


def test_a_network_comes_back_as_it_was_saved(tmp_path):
    network = StyleNetwork(init_features=4, num_residuals=1, normalization="batch")
    save_network(tmp_path / "x.safetensors", network, {"name": "x", "losses": {"content": 1.5}})
    loaded, metadata = load_network(tmp_path / "x.safetensors")
    assert loaded.config == network.config == metadata["config"]
    assert metadata["provenance"] == {"name": "x", "losses": {"content": 1.5}}
    assert read_metadata(tmp_path / "x.safetensors") == metadata
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    for key, value in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, atol=1e-3, rtol=1e-3)


def test_files_are_in_half_precision(weights):
    assert {tensor.dtype for tensor in load_file(weights).values()} == {torch.float16}


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    network = StyleNetwork(init_features=4, num_residuals=1)
    save_network(tmp_path / "x.safetensors", network, {})
    before = (tmp_path / "x.safetensors").read_bytes()
    network.decoder[-1].bias.data[0] = 1e6  # infinite in float16
    with pytest.raises(WeightsError, match=r"decoder\.\d+\.bias is not finite in half precision"):
        save_network(tmp_path / "x.safetensors", network, {})
    assert (tmp_path / "x.safetensors").read_bytes() == before


def rewritten(weights, path, *, without="", **metadata):
    """A copy of a weights file with other metadata, or without a tensor."""
    tensors = {key: value for key, value in load_file(weights).items() if key != without}
    strings = {"format": FORMAT, "task": "style", "config": "{}", "provenance": "{}"}
    save_file(tensors, path, strings | metadata)
    return path


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_bad_files_are_told_apart(weights, tmp_path):
    config = read_metadata(weights)["config"]
    config, wider = json.dumps(config), json.dumps(config | {"init_features": 5})
    cases = {
        "there is no weights file": tmp_path / "missing.safetensors",
        "format torchserve-perceptual/1 expected, none found": rewritten(weights, tmp_path / "a.st", format="none"),
        "is for the task juggling; this version supports style, super-resolution": rewritten(
            weights, tmp_path / "b.st", task="juggling"
        ),
        "does not fit its own network: .*size mismatch": rewritten(weights, tmp_path / "c.st", config=wider),
        r"does not fit its own network: .*Missing key.*encoder\.0\.0\.weight": rewritten(
            weights, tmp_path / "d.st", without="encoder.0.0.weight", config=config
        ),
        "does not fit its own network: .*unexpected keyword": rewritten(weights, tmp_path / "e.st", config='{"x": 1}'),
        "does not fit its own network: init_features is 0": rewritten(
            weights, tmp_path / "f.st", config='{"init_features": 0}'
        ),
        "has damaged metadata: Expecting": rewritten(weights, tmp_path / "g.st", config="{"),
        "has damaged metadata: .*dictionary": rewritten(weights, tmp_path / "h.st", provenance="[1]"),
        "is not a safetensors file, or is damaged": tmp_path / "broken.safetensors",
    }
    for name, value in {"recipe": None, "training": 5, "earlier_trainings": 3}.items():
        file = tmp_path / f"{name}.st"
        cases[f"has damaged metadata: {name} is"] = rewritten(weights, file, provenance=json.dumps({name: value}))
    save_file(load_file(weights), tmp_path / "i.st", {"format": FORMAT})
    cases["is for the task None"] = tmp_path / "i.st"
    save_file(load_file(weights), tmp_path / "j.st", {"format": FORMAT, "task": "style", "config": "{}"})
    cases["has damaged metadata: 'provenance'"] = tmp_path / "j.st"
    (tmp_path / "broken.safetensors").write_bytes(weights.read_bytes()[:100])
    for message, file in cases.items():
        with pytest.raises(WeightsError, match=message):
            load_network(file)


def test_names_are_found_or_listed(weights):
    assert find_weights(weights) == weights
    assert find_weights("styles").name == "styles.safetensors"
    with pytest.raises(WeightsError, match=r"nor the name of a network \(those that ship: .*styles.*\)"):
        find_weights("no_such")
    with pytest.raises(WeightsError, match=r"nor the name of a network; did you mean styles\? \("):
        find_weights("stlyes")


def test_one_s_own_networks_are_found_by_name_and_do_not_ship(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "networks").mkdir()
    for name in ("mine", "styles"):
        shutil.copy(weights, tmp_path / f"networks/{name}.safetensors")
    assert find_weights("mine") == Path("networks/mine.safetensors")
    assert find_weights("styles") == Path("networks/styles.safetensors") != shipped_weights()["styles"]
    assert shipped_weights().keys() == {*NETWORKS}
    with pytest.raises(WeightsError, match="in networks/: mine, styles"):
        find_weights("no_such")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
def test_what_ships_is_what_the_package_lists():
    files = subprocess.run(["git", "ls-files", "models"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert sorted(NETWORKS) == list(NETWORKS) == [Path(each).stem for each in files.split() if "safetensors" in each]


def test_a_network_named_twice_is_one(weights, tmp_path):
    assert find_distinct([weights, "styles", weights]) == {weights.stem: weights, "styles": find_weights("styles")}
    (tmp_path / "styles.safetensors").write_bytes(weights.read_bytes())
    with pytest.raises(WeightsError, match="would both be styles: rename one"):
        find_distinct(["styles", tmp_path / "styles.safetensors"])


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "new" / "file"
    write_atomically(target, b"old")
    with pytest.raises(TypeError):
        write_atomically(target, "not bytes")
    assert target.read_bytes() == b"old" and list(target.parent.iterdir()) == [target]


def test_weights_of_one_style_as_earlier_versions_wrote_them(tmp_path):
    torch.manual_seed(0)
    network = StyleNetwork(init_features=4, num_residuals=2)
    torch.nn.init.uniform_(network.styles, 0.2, 2)
    save_network(tmp_path / "today.safetensors", network, {})
    tensors = load_file(tmp_path / "today.safetensors")
    numbers = tensors.pop("styles")[0, 0].split([4, 4, 8, 8, *[16] * 10, 8, 8, 4, 4])
    # One Sequential of all layers, the norms' numbers among them.
    places = [*((f"encoder.{i}", i) for i in range(3)), *((f"blocks.{i}", 3 + i) for i in range(2))]
    places += [(f"decoder.{i}", 5 + i) for i in range(3)]
    earlier = {}
    for key, tensor in tensors.items():
        part = next(part for part, _ in places if key.startswith(part + "."))
        earlier[key.replace(part, f"layers.{dict(places)[part]}", 1)] = tensor
    norms = ["0.1", "1.1", "2.1", "3.body.1", "3.body.4", "4.body.1", "4.body.4", "5.2", "6.2"]
    kinds = [f"layers.{norm}.{kind}" for norm in norms for kind in ("weight", "bias")]
    earlier |= {key: number.clone() for key, number in zip(kinds, numbers, strict=True)}
    with safe_open(tmp_path / "today.safetensors", "pt") as file:
        metadata = file.metadata()
    config = json.loads(metadata["config"])
    del config["styles"], config["sizes"]
    save_file(earlier, tmp_path / "earlier.safetensors", metadata | {"config": json.dumps(config)})
    loaded, _ = load_network(tmp_path / "earlier.safetensors")
    expected, _ = load_network(tmp_path / "today.safetensors")
    photo = torch.rand(1, 3, 20, 24)
    assert torch.equal(loaded(photo), expected(photo))


def test_super_resolution_as_earlier_versions_wrote_it(tmp_path):
    torch.manual_seed(0)
    network = SuperResolutionNetwork(scale=4, init_features=4, num_residuals=1).eval()
    torch.nn.init.normal_(network.layers[-1].weight, std=0.05)
    save_network(file := tmp_path / "old.safetensors", network, {})
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    config = json.loads(metadata["config"])
    assert not config.pop("blended")
    save_file(load_file(file), file, metadata | {"config": json.dumps(config)})
    photo = torch.rand(1, 3, 9, 11)
    with torch.inference_mode():
        torch.testing.assert_close(load_network(file)[0](photo), network(photo), atol=1e-3, rtol=0)
