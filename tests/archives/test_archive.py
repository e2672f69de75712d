import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from serving_fixtures import altered

from perceptual.archives.build import HANDLERS, ROOMS, package, package_collection, repackage
from perceptual.archives.manifest import read_manifest
from perceptual.errors import InputError, ServerError, WeightsError
from perceptual.inference.metadata import read_metadata, shipped_weights
from perceptual.inference.networks import StyleNetwork, SuperResolutionNetwork
from perceptual.inference.weights import NETWORKS, save_network

ROOT = Path(__file__).parents[2]

# Loads an unpacked archive as TorchServe's worker does, from the folder it stands in, and answers one request.
WORKER = """
import json, sys
from pathlib import Path
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.model_loader import ModelLoaderFactory
import ts

sys.path.insert(0, "")
metrics = MetricsCacheYamlImpl(str(Path(ts.__file__).parent / "configs/metrics.yaml"))
metrics.initialize_cache()
loader = ModelLoaderFactory.get_model_loader()
service = loader.load("tiny", str(Path.cwd()), "style_transfer.py", None, 1, metrics_cache=metrics)
service.set_cl_socket(None)
body = {"name": "body", "value": bytearray(Path(sys.argv[1]).read_bytes()), "contentType": "image/png"}
reply = service.predict([{"requestId": b"1", "headers": [], "parameters": [body]}])
ours = {name: module.__file__ for name, module in sys.modules.items() if name.startswith("perceptual")}
print(json.dumps({"jpeg": b"\\xff\\xd8\\xff" in reply, "modules": ours}))
"""


@pytest.fixture
def copy(weights, tmp_path):
    """Copies the tiny weights file to a file of another name."""
    return lambda name: (tmp_path / name).write_bytes(weights.read_bytes()) and tmp_path / name


def test_holds_handler_configuration_weights_and_inference_modules(model_store, weights):
    with zipfile.ZipFile(model_store / "tiny.mar") as archive:
        modules = {
            str(file.relative_to(ROOT))
            for pattern in ("*.py", *(f"{room}/**/*.py" for room in ROOMS))
            for file in (ROOT / "perceptual").glob(pattern)
        }
        large = "large/super_resolution_x4.safetensors"
        own = {"MAR-INF/MANIFEST.json", "style_transfer.py", "style_transfer.yaml", "tiny.safetensors", large}
        assert set(archive.namelist()) == modules | own
        assert archive.read(large) == shipped_weights()["super_resolution_x4"].read_bytes()
        assert archive.read("tiny.safetensors") == weights.read_bytes()


def test_manifest_tells_name_version_and_description(model_store):
    manifest = read_manifest(model_store / "tiny.mar")
    assert manifest["description"] == "für Tests"
    assert manifest["model"] == {
        "modelName": "tiny",
        "modelVersion": "1.2",
        "handler": "style_transfer.py",
        "configFile": "style_transfer.yaml",
    }


def test_version_is_1_0_where_the_provenance_has_none(tmp_path):
    save_network(tmp_path / "plain.safetensors", StyleNetwork(init_features=4, num_residuals=1), {})
    manifest = read_manifest(package(tmp_path / "plain.safetensors", tmp_path).path)
    assert manifest["model"]["modelVersion"] == "1.0"


def test_every_task_has_a_handler():
    assert HANDLERS.keys() == NETWORKS.keys()


def test_builds_only_what_changed(weights, tmp_path):
    store, source = tmp_path / "store", tmp_path / "tiny.safetensors"
    source.write_bytes(weights.read_bytes())
    first = package(source, store)
    written = first.path.stat().st_mtime_ns
    os.utime(source)
    assert first.built
    assert not package(source, store).built
    assert first.path.stat().st_mtime_ns == written

    facts = read_metadata(source)["provenance"]
    save_network(source, StyleNetwork(init_features=4, num_residuals=1), facts)  # only the weights differ
    assert package(source, store).built
    save_network(source, StyleNetwork(init_features=4, num_residuals=1), {"version": "1.3"})
    assert package(source, store).built
    assert read_manifest(first.path)["model"]["modelVersion"] == "1.3"
    assert [each.name for each in store.iterdir()] == ["tiny.mar"]


def test_builds_again_what_was_damaged_with_the_same_bytes(weights, tmp_path):
    archive = package(weights, tmp_path).path
    content = archive.read_bytes()
    archive.write_bytes(content[:1000])
    assert package(weights, tmp_path).built
    assert archive.read_bytes() == content
    with zipfile.ZipFile(archive) as file:  # nor would they differ tomorrow
        assert {entry.date_time[0] for entry in file.infolist()} == {1980}
    assert read_manifest(archive)["createdOn"].startswith("01/01/1980")


def test_changed_modules_build_a_new_archive(weights, tmp_path, monkeypatch):
    package(weights, tmp_path)
    monkeypatch.setattr("perceptual.archives.build.ROOMS", ROOMS[:-1])
    assert package(weights, tmp_path).built


def test_leaves_the_temporary_folder_alone(weights, tmp_path, monkeypatch):
    # The archiver alone would delete $TMPDIR/tiny.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "tiny").mkdir()
    package(weights, tmp_path / "store")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["store", "tiny"]


@pytest.mark.slow
def test_is_served_without_the_package(model_store, without_package, photo, tmp_path):
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(model_store / "tiny.mar") as archive:
        archive.extractall(folder)
    (tmp_path / "photo.png").write_bytes(photo)
    (tmp_path / "worker.py").write_text(WORKER)
    environment = os.environ | without_package
    command = [sys.executable, tmp_path / "worker.py", tmp_path / "photo.png"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["jpeg"]
    assert all(file.startswith(str(folder)) for file in result["modules"].values())
    assert "perceptual.inference.predictor" in result["modules"]

    hidden = subprocess.run([sys.executable, "-c", "import perceptual"], cwd=tmp_path, env=environment, check=False)
    assert hidden.returncode == 1, "the package was not hidden, so the above proves nothing"


@pytest.mark.parametrize("name", ["with space", "all", "-option", "up..up", "übel"])
def test_refuses_names_that_torchserve_cannot_take(copy, name, tmp_path):
    with pytest.raises(InputError, match="cannot be served"):
        package(copy(f"{name}.safetensors"), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_takes_dotted_names(copy, tmp_path):
    assert package(copy("tiny.v2.safetensors"), tmp_path).path.name == "tiny.v2.mar"


def test_weights_of_another_suffix_are_found_by_the_worker(weights, tmp_path):
    other = tmp_path / "other.bin"
    other.write_bytes(weights.read_bytes())
    with zipfile.ZipFile(package(other, tmp_path).path) as archive:
        assert "other.safetensors" in archive.namelist()


def test_nothing_is_unpacked_outside(model_store, tmp_path):
    evil = tmp_path / "evil.mar"
    shutil.copy(model_store / "tiny.mar", evil)
    with zipfile.ZipFile(evil, "a") as archive:
        archive.writestr("../../escaped", b"")
    with pytest.raises(InputError, match=r"would be written outside of it: \.\./\.\./escaped"):
        repackage(evil, tmp_path / "store", version="2.0")
    named = altered(model_store / "tiny.mar", tmp_path / "named.mar", modelName="../tiny")
    with pytest.raises(InputError, match="modelName; '../tiny' cannot be served"):
        repackage(named, tmp_path / "store", version="2.0")


def test_refuses_missing_and_foreign_weights(tmp_path):
    with pytest.raises(WeightsError, match="there is no weights file"):
        package(tmp_path / "none.safetensors", tmp_path)
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        package(tmp_path / "junk.safetensors", tmp_path)


def test_a_failing_archiver_is_one_clear_error(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ServerError, match="torch-model-archiver failed for tiny"):
        package(weights, tmp_path)
    assert not list(tmp_path.iterdir())


def flipped(content, place):
    """The content with one byte changed."""
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"junk", "not a model archive"),
        (lambda content: flipped(content, content.index(b"tiny.safetensors") + 300), "damaged"),
        (lambda content: content[:-30], "not a model archive"),
        # Flags and method of the first entry of the directory at the end.
        *(
            (lambda content, place=place: flipped(content, content.index(b"PK\1\2") + place), "not a model archive")
            for place in (8, 10)
        ),
    ],
)
def test_damaged_archives_are_told(model_store, tmp_path, damage, message):
    (tmp_path / "bad.mar").write_bytes(damage((model_store / "tiny.mar").read_bytes()))
    with pytest.raises(ServerError, match=message):
        read_manifest(tmp_path / "bad.mar")


# ---- Collections


@pytest.fixture
def two_styles_and_a_factor(copy, tmp_path):
    save_network(tmp_path / "larger.safetensors", SuperResolutionNetwork(scale=4, init_features=4, num_residuals=1), {})
    return [copy("one.safetensors"), copy("other.safetensors"), tmp_path / "larger.safetensors"]


def test_a_collection_is_one_archive(two_styles_and_a_factor, tmp_path):
    first = package_collection("several", two_styles_and_a_factor, tmp_path / "store")
    assert first == (tmp_path / "store/several.mar", True)
    assert not package_collection("several", two_styles_and_a_factor, tmp_path / "store").built
    assert package_collection("several", two_styles_and_a_factor[:2], tmp_path / "store").built
    manifest = read_manifest(first.path)
    assert manifest["description"] == "Collection of one, other"
    with zipfile.ZipFile(first.path) as archive:
        names = {
            "one.safetensors",
            "other.safetensors",
            "collection.py",
            "large/super_resolution_x4.safetensors",
        }
        assert names <= set(archive.namelist())
    with zipfile.ZipFile(package_collection("whole", two_styles_and_a_factor, tmp_path).path) as archive:
        assert [name for name in archive.namelist() if "large/" in name] == []  # its own does it


def test_a_collection_must_be_able_to_choose(two_styles_and_a_factor, tmp_path):
    one, other, larger = two_styles_and_a_factor
    (tmp_path / "again.safetensors").write_bytes(larger.read_bytes())
    for files in ([one, other, one], [larger, tmp_path / "again.safetensors"]):
        with pytest.raises(WeightsError, match="one network for each name, and for each factor"):
            package_collection("several", files, tmp_path)
    many = tmp_path / "many.safetensors"
    names = [{"name": "dots"}, {"name": "one"}]
    save_network(many, StyleNetwork(styles=2, init_features=4, num_residuals=1), {"styles": names})
    with pytest.raises(WeightsError, match="one and many both have a style one: leave out or rename one"):
        package_collection("several", [one, many], tmp_path)
    with pytest.raises(InputError, match="--collection"):
        package_collection("se/veral", [one], tmp_path)
    assert not list(tmp_path.glob("*.mar"))
