import pytest
import torch
from torch import nn

from perceptual.inference.networks import StyleNetwork, SuperResolutionNetwork
from perceptual.inference.weights import save_network

STYLES = ["starry_night", "udnie", "the_scream"]
MIXTURE = ["--style", "starry_night:3,udnie:1", "--stroke", "0.5"]
# Format, ending, network, and more arguments; each format with and without style inputs, half precision and scales.
EXPORTS = {
    "onnx, styles": ("onnx", ".onnx", "styles", []),
    "openvino, x4, half": ("openvino", ".xml", "x4", ["--float16"]),
    "torchscript, styles, half": ("torchscript", ".pt", "styles", ["--float16"]),
    "torchscript, x4, half": ("torchscript", ".pt", "x4", ["--float16"]),
    "torchscript, x8": ("torchscript", ".pt", "x8", []),
    "onnx, x2, crisp": ("onnx", ".onnx", "x2", ["--fidelity", "0.25", "--float16"]),
    "torchscript, paper": ("torchscript", ".pt", "paper", []),
    "torchscript, as imported": ("torchscript", ".pt", "imported", []),
    "torchscript, mixture, no grain": ("torchscript", ".pt", "styles", [*MIXTURE, "--grain", "0"]),
    "torchscript, mixture": ("torchscript", ".pt", "styles", MIXTURE),
    "onnx, mixture, half": ("onnx", ".onnx", "styles", [*MIXTURE, "--float16"]),
}
NEEDS = {"onnx": ("onnxscript", "onnxruntime"), "openvino": ("onnxscript", "openvino"), "torchscript": ()}


@pytest.fixture(scope="session")
def networks(tmp_path_factory):
    """A folder of small networks with random weights, by name."""
    torch.manual_seed(0)
    small = {"init_features": 4, "num_residuals": 1}
    made = {
        "styles": StyleNetwork(**small, styles=3, sizes=2, grain=0.5),
        "paper": StyleNetwork(**small, **StyleNetwork.presets["paper"]),
        "imported": StyleNetwork(**small, upsampling="nearest", output="linear", multiple=1),
        "x4": SuperResolutionNetwork(scale=4, **small),
        "x8": SuperResolutionNetwork(scale=8, **small),
        "x2": SuperResolutionNetwork(scale=2, **small, upsampling="shuffle", blended=True),
    }
    folder = tmp_path_factory.mktemp("networks")
    for name, network in made.items():
        if name in ("styles", "imported"):
            nn.init.uniform_(network.styles, 0.2, 1.5)
        elif name == "x2":
            for parameter in network.parameters():
                nn.init.normal_(parameter, std=0.05)
        elif name != "paper":
            nn.init.normal_(network.layers[-1].weight, std=0.05)
        named = {"styles": [{"name": each} for each in STYLES]} if name == "styles" else {}
        save_network(folder / f"{name}.safetensors", network.eval(), {"licence": "Apache-2.0", **named})
    return folder


def exported_by_command(name, networks, folder):
    """The file that a command line writes."""
    from perceptual.commands import main

    format, ending, network, more = EXPORTS[name]
    for module in NEEDS[format]:
        pytest.importorskip(module)
    output = folder / f"{network}{ending}"
    arguments = ["export", networks / f"{network}.safetensors", "--format", format, "-o", output, *more]
    assert main([str(each) for each in arguments]) == 0
    return output


@pytest.fixture(scope="session")
def exported(networks, tmp_path_factory):
    """Gives, by a name of EXPORTS, the file; each is made once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = exported_by_command(name, networks, tmp_path_factory.mktemp("exported, here"))
        return made[name]

    return get
