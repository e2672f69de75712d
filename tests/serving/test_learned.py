import threading
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch

from perceptual.errors import UnknownStyle
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.styles import read_weights, save_style
from perceptual.inference.weights import save_network
from perceptual.serving.registration import register


@pytest.fixture
def trunk(tmp_path):
    torch.manual_seed(5)  # another trunk than that of tiny
    network = StyleNetwork(styles=2, init_features=4, num_residuals=1)
    torch.nn.init.normal_(network.styles)
    save_network(tmp_path / "trunk.safetensors", network, {"styles": [{"name": "dots"}, {"name": "waves"}]})
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
    assert status == 1 and "no model that is served holds the trunk" in err
    register(server.address, trunk)
    with server.address.inference() as client:
        old = client.stylize(photo, "trunk", style="dots", format="png")
        status, _, err = run("models", "register", learned(trunk, "waves"), "--port", port)
        assert status == 1 and "has a style waves already: rename" in err
        status, _, err = run("models", "register", learned(trunk, "other", "0" * 64), "--port", port)
        assert status == 1 and "no model that is served holds the trunk" in err
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
    assert [each.version for each in management.versions("trunk")] == ["1.1"]
    management.unregister("trunk")
    for name in {file.name for file in server.model_store.iterdir()} - before:
        (server.model_store / name).unlink()
