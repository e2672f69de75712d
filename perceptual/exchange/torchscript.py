"""TorchScript files: run by PyTorch in C++ or Python, without this package."""

import copy
import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .portable import Portable
from .run import Array, Run

FACTS = "perceptual.json"  # the file inside, with the metadata


def write(network: Portable, example: Mapping[str, Tensor], facts: Mapping[str, str], path: Path, half: bool) -> None:
    """Writes a portable network, whose weights are halves if ``half``; arguments as for :func:`.onnx.write`."""
    whole = copy.deepcopy(network)
    images, *styles = example.values()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of deprecation, and of values that tracing makes constant
        whole.layers = torch.jit.trace(whole.layers, (whole.padded(images), *styles), check_trace=False)
        content = io.BytesIO()  # PyTorch ends the process when it cannot write a file
        torch.jit.save(torch.jit.script(whole), content, _extra_files={FACTS: json.dumps(dict(facts))})
    path.write_bytes(content.getvalue())


def load(path: Path) -> Run:
    """A function that runs the file on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = torch.jit.load(str(path), map_location="cpu")

    def run(inputs: Mapping[str, Array]) -> Array:
        with torch.inference_mode():
            result: Tensor = network(*map(torch.from_numpy, inputs.values()))
        return result.numpy()

    return run
