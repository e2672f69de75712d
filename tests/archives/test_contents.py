import json
import zipfile

import pytest
import torch
from serving_fixtures import altered

from perceptual.archives.build import package, package_collection
from perceptual.archives.contents import Contents, Style, read_contents
from perceptual.archives.manifest import MANIFEST
from perceptual.errors import ArchiveError
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.weights import save_network


@pytest.fixture
def many(tmp_path):
    """The weights file of a network of two styles at two sizes."""
    torch.manual_seed(0)
    styles = [{"name": "dots", "title": "Dots & <b>", "artist": "Nobody"}, {"name": "long_lines"}]
    network = StyleNetwork(styles=2, sizes=2, init_features=4, num_residuals=0, grain=0.5)
    save_network(tmp_path / "many.safetensors", network, {"styles": styles})
    return tmp_path / "many.safetensors"


MANY = (
    Style("dots", "Dots & <b>", "Nobody", "many", strokes=True, grain=True),
    Style("long_lines", "Long Lines", "", "many", strokes=True, grain=True),
)
TINY = Style("tiny", "Tiny", "", "tiny", strokes=False, grain=False)


@pytest.mark.slow
def test_of_networks_alone(weights, many, upscaler, tmp_path):
    found = read_contents(package(weights, tmp_path).path)
    assert found == Contents(False, (TINY,), (), (), 8192**2, True)
    assert read_contents(package(many, tmp_path).path) == Contents(True, MANY, (), (), 8192**2, True)
    assert read_contents(package(upscaler, tmp_path).path) == Contents(False, (), (4,), (), 8192**2)


def test_of_a_network_with_two_sets_of_weights(blended, tmp_path):
    assert read_contents(package(blended, tmp_path).path) == Contents(False, (), (2,), (2,), 8192**2)


def test_of_a_collection(weights, many, upscaler, tmp_path):
    found = read_contents(package_collection("gallery", [weights, many, upscaler], tmp_path).path)
    assert found == Contents(True, (*MANY, TINY), (4,), (), 8192**2, True)


def test_of_one_style_that_has_a_name_of_its_own(weights, tmp_path):
    network = StyleNetwork(init_features=4, num_residuals=0)
    save_network(tmp_path / "file.safetensors", network, {"styles": [{"name": "waves"}]})
    archive = package_collection("gallery", [weights, tmp_path / "file.safetensors"], tmp_path).path
    assert [(each.name, each.network) for each in read_contents(archive).styles] == [
        ("waves", "file"),
        ("tiny", "tiny"),
    ]


def test_of_another_s_archive_or_a_damaged_one(weights, tmp_path):
    ours = package(weights, tmp_path).path
    with zipfile.ZipFile(ours) as file:
        manifest = json.loads(file.read(MANIFEST))
    del manifest["inputsDigest"]
    other = altered(ours, tmp_path / "other.mar", {MANIFEST: json.dumps(manifest).encode()})
    assert read_contents(other) == Contents(False, (), (), (), 0)
    for file, content in (
        ("tiny.safetensors", b""),
        ("tiny.safetensors", b"\xff" * 100),
        ("tiny.safetensors", (2).to_bytes(8, "little") + b"[]"),
        ("style_transfer.yaml", b"max_pixels: [a"),
        ("style_transfer.yaml", b"{}"),
    ):
        with pytest.raises(ArchiveError, match="is damaged"):
            read_contents(altered(ours, tmp_path / "bad.mar", {file: content}))
