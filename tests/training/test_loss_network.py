import hashlib
import http.server
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torchvision.models import VGG16_Weights, VGG19_Weights, vgg16, vgg19
from training_fixtures import narrow_vgg

from perceptual.errors import TrainingError
from perceptual_training import loss_network
from perceptual_training.loss_network import layer_names, load_loss_network


@pytest.mark.parametrize(("build", "last", "count"), [(vgg16, "relu5_3", 30), (vgg19, "relu5_4", 36)])
def test_layer_names_are_the_literature_s(build, last, count):
    with torch.device("meta"):
        names = layer_names(build(weights=None, init_weights=False).features)
    assert names[:6] == ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1", "conv2_1"]
    assert names[count - 1] == last and names[-1] == "pool5"


def test_features_are_those_of_the_plain_network(loss_weights):
    network, origin = load_loss_network("vgg16", ["relu2_2", "relu1_2"], loss_weights)
    assert len(network.features) == 9  # cut after relu2_2
    assert hashlib.sha256(loss_weights.read_bytes()).hexdigest() in origin
    photo = torch.rand(2, 3, 32, 32)
    x = (photo - 0.5) * 255
    expected = {}
    for name, layer in zip(network.names, network.features, strict=True):
        x = layer(x)
        expected[name] = x
    found = network(photo, ["relu1_2", "relu2_2"])
    assert list(found) == ["relu1_2", "relu2_2"]
    for layer, features in found.items():
        torch.testing.assert_close(features, expected[layer])
    assert found["relu1_2"].min() >= 0


@pytest.mark.parametrize(
    ("name", "published"), [("vgg16", VGG16_Weights.IMAGENET1K_FEATURES), ("vgg19", VGG19_Weights.IMAGENET1K_V1)]
)
def test_conventions_are_torchvision_s(name, published):
    ours, preset = loss_network.ARCHITECTURES[name], published.transforms()
    assert (ours.url, [*ours.mean], [*ours.std]) == (published.url, preset.mean, preset.std)


def test_a_file_s_own_convention_is_used(loss_weights, tmp_path):
    state, file = load_file(loss_weights), tmp_path / "own.safetensors"
    save_file(state, file, {"arch": "vgg16", "mean": "[0.1, 0.2, 0.3]", "std": "[1, 2, 4]"})
    network, _ = load_loss_network("vgg16", ["relu1_1"], file)
    photo = torch.rand(1, 3, 16, 16)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in ([0.1, 0.2, 0.3], [1.0, 2.0, 4.0]))
    expected = F.conv2d((photo - mean) / std, state["features.0.weight"], state["features.0.bias"], padding=1)
    # Both at once: what comes later must not change what was handed out.
    found = network(photo, ["conv1_1", "relu1_1"])
    torch.testing.assert_close(found["conv1_1"], expected)
    torch.testing.assert_close(found["relu1_1"], expected.relu())


def test_nothing_is_computed_past_the_deepest_layer_asked_for(loss_weights):
    network, _ = load_loss_network("vgg16", ["relu4_3"], loss_weights)
    ran = []
    for name, layer in zip(network.names, network.features, strict=True):
        layer.register_forward_hook(lambda *_, name=name: ran.append(name))
    network(torch.rand(1, 3, 32, 32), ["relu2_2"])
    assert ran[-1] == "relu2_2"


def test_it_is_frozen_and_stays_in_evaluation_mode(loss_weights):
    network, _ = load_loss_network("vgg16", ["relu1_2"], loss_weights)
    network.train()
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_unknown_layer(loss_weights):
    with pytest.raises(TrainingError, match="vgg16 has no layer relu9_9; it has conv1_1"):
        load_loss_network("vgg16", ["relu9_9"], loss_weights)


def test_a_file_of_another_network_is_refused(loss_weights):
    with pytest.raises(TrainingError, match="contains vgg16, an eighth as wide, not vgg19"):
        load_loss_network("vgg19", ["relu1_2"], loss_weights)


@pytest.mark.parametrize("mean", [[0.5], [0.5] * 4, ["a"]])
def test_a_file_whose_metadata_makes_no_sense_is_refused(loss_weights, tmp_path, mean):
    metadata = {"arch": "vgg16", "mean": json.dumps(mean), "std": json.dumps([1.0] * 3)}
    save_file({"features.0.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "odd.safetensors", metadata)
    with pytest.raises(TrainingError, match="its metadata must give mean and std, three numbers each"):
        load_loss_network("vgg16", ["relu1_2"], tmp_path / "odd.safetensors")


def test_a_file_without_a_needed_layer_is_refused(loss_weights, tmp_path):
    state = {f"features.{key}": value for key, value in narrow_vgg().features[:5].state_dict().items()}
    torch.save(state, tmp_path / "short.pth")
    digest = hashlib.sha256((tmp_path / "short.pth").read_bytes()).hexdigest()
    with pytest.raises(TrainingError, match=r"lacks features\.5\.weight, needed for relu2_2"):
        load_loss_network("vgg16", ["relu2_2"], tmp_path / "short.pth", digest)


def test_a_pth_file_must_be_known_or_vouched_for(loss_weights, tmp_path):
    state = {f"features.{key}": value for key, value in narrow_vgg().features.state_dict().items()}
    file = tmp_path / "mine.pth"
    torch.save(state, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(TrainingError, match=f"--loss-weights-sha256 {digest}"):
        load_loss_network("vgg16", ["relu1_2"], file)
    with pytest.raises(TrainingError, match="not the expected abc"):
        load_loss_network("vgg16", ["relu1_2"], file, "abc")
    network, origin = load_loss_network("vgg16", ["relu1_2"], file, digest)
    torch.testing.assert_close(network.features[0].weight, state["features.0.weight"])
    assert origin == f"vgg16, mine.pth (SHA-256 {digest})"


@pytest.mark.parametrize("content", [None, torch.zeros(3), {"features.0.weight": 3}])
def test_a_pth_file_that_holds_something_else_is_refused(content, tmp_path):
    file = tmp_path / "other.pth"
    torch.save(content, file)
    with pytest.raises(TrainingError, match=r"is not a state dictionary|lacks features\.0\."):
        load_loss_network("vgg16", ["relu1_2"], file, hashlib.sha256(file.read_bytes()).hexdigest())


def test_torchvision_s_other_vgg16_has_its_own_convention():
    digest = Path(VGG16_Weights.IMAGENET1K_V1.url).stem.split("-")[-1] + "0" * 56
    found = loss_network.input_convention("vgg16", Path("x.pth"), {}, digest, verified=True)
    preset = VGG16_Weights.IMAGENET1K_V1.transforms()
    assert [[*each] for each in found] == [preset.mean, preset.std]


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    import os

    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"features.0.weight": Malicious()}, tmp_path / "bad.pth")
    with pytest.raises(TrainingError, match="is not a state dictionary"):
        load_loss_network("vgg16", ["relu1_2"], tmp_path / "bad.pth")
    assert not (tmp_path / "owned").exists()


def test_a_missing_or_broken_file_is_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"cannot read.*missing\.safetensors"):
        load_loss_network("vgg16", ["relu1_2"], tmp_path / "missing.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"123")
    with pytest.raises(TrainingError, match="cannot read"):
        load_loss_network("vgg16", ["relu1_2"], tmp_path / "broken.safetensors")


@pytest.fixture
def file_server(tmp_path):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_default_weights_are_downloaded_checked_and_cached(loss_weights, file_server, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    state = {f"features.{key}": value for key, value in narrow_vgg().features.state_dict().items()}
    torch.save(state, tmp_path / "vgg.pth")
    digest = hashlib.sha256((tmp_path / "vgg.pth").read_bytes()).hexdigest()[:8]
    (tmp_path / "vgg.pth").rename(tmp_path / f"vgg16-{digest}.pth")
    url = f"{file_server}/vgg16-{digest}.pth"
    monkeypatch.setitem(loss_network.ARCHITECTURES, "vgg16", replace(loss_network.ARCHITECTURES["vgg16"], url=url))
    network, origin = load_loss_network("vgg16", ["relu1_2"])
    torch.testing.assert_close(network.features[0].weight, state["features.0.weight"])
    assert origin == f"vgg16, torchvision vgg16-{digest}.pth"
    (tmp_path / f"vgg16-{digest}.pth").unlink()
    load_loss_network("vgg16", ["relu1_2"])  # from the cache
    # The same weights by another way are the same to the provenance.
    torch.save(state, tmp_path / "vgg.pth")
    assert load_loss_network("vgg16", ["relu1_2"], tmp_path / "vgg.pth")[1] == origin


def test_without_internet_the_error_says_what_to_do(loss_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    with pytest.raises(TrainingError) as caught:
        load_loss_network("vgg16", ["relu1_2"])
    message = str(caught.value)
    assert "http://127.0.0.1:9/vgg16-00000000.pth" in message  # where to get it
    assert str(tmp_path / "hub/checkpoints/vgg16-00000000.pth") in message  # where to put it
    assert "--loss-weights" in message  # or what to type
