"""Converts style networks of other projects to our networks, which give the same pictures.

Nothing is approximated. Norms remove constants, so biases before norms and the offset of the input are dropped; scale
factors of input and output are folded into the first and the last convolution. If the blocks of a network add their
input twice, its features double from block to block. Dividing the weights by 2, 4, … gives the features of blocks that
add their input once, without rounding, as these are powers of two.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..errors import WeightsError, in_one_line
from ..inference.networks import StyleNetwork
from ..inference.networks.norms import InstanceNorm
from ..inference.styles import shape
from .foreign import read_tensors
from .layouts import LAYOUTS, Layout


def import_network(file: str | Path, layout: str | None = None, *, licence: str) -> tuple[StyleNetwork, dict[str, Any]]:
    """Reads a network of another project as one of ours that gives the same pictures.

    Where 4 does not divide height or width, the other projects' picture is up to 3 px larger than the photo; ours is
    cropped to the photo's size.

    Args:
        file: As the project saves it.
        layout: One of :data:`.layouts.LAYOUTS`; by default recognized by the names of the weights.
        licence: The licence of the network.

    Returns:
        The network, in evaluation mode, and its provenance.

    Raises:
        WeightsError: The file cannot be read, as in :func:`.foreign.read_tensors`, or has another architecture.
    """
    tensors = read_tensors(file)
    name = layout or find_layout(file, tensors)
    network = build(file, name, tensors)
    return network, {
        "name": Path(file).stem,
        "description": f"Style transfer, imported from {LAYOUTS[name].repository}",
        "licence": licence,
        "imported": {
            "from": name,
            "repository": LAYOUTS[name].repository,
            "file": Path(file).name,
            "sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest(),
        },
        "versions": {"torchserve-perceptual": __version__, "torch": torch.__version__},
    }


def find_layout(file: str | Path, tensors: Mapping[str, Tensor]) -> str:
    """The layout whose last convolutions the tensors have. Raises WeightsError if none has."""
    for name, layout in LAYOUTS.items():
        if any(key.startswith(f"{ending}.") for key in tensors for ending in layout.endings):
            return name
    known = ", ".join(layout.repository for layout in LAYOUTS.values())
    found = f"its first weight is {next(iter(tensors))!r}" if tensors else "it holds none"
    raise WeightsError(f"{file} is not a style network of a supported project ({known}): {found}")


def build(file: str | Path, name: str, tensors: Mapping[str, Tensor]) -> StyleNetwork:
    """Builds the network from tensors in a layout. Raises WeightsError if they have another architecture."""
    layout = LAYOUTS[name]
    first = tensors.get("conv1.conv2d.weight", torch.empty(0))
    blocks = len({match[1] for key in tensors if (match := re.match(r"res(\d+)\.", key))})
    try:
        with torch.device("meta"):  # shapes only, without memory: a file may claim a huge network
            network = StyleNetwork(
                init_features=len(first) if first.ndim else 0,
                num_residuals=blocks,
                upsampling="nearest",
                output="linear",
                multiple=1,
            )
    except (ValueError, RuntimeError) as error:
        raise WeightsError(f"{file} is not a network of {name}: {in_one_line(error)}") from error
    check_form(f"{file} is not a network of {name}", network, layout, tensors)
    network.load_state_dict(converted(layout, tensors, blocks), assign=True)
    return network.eval().requires_grad_(False)


def check_form(refusal: str, network: StyleNetwork, layout: Layout, tensors: Mapping[str, Tensor]) -> None:
    """Raises WeightsError unless the tensors have exactly the names and shapes of a layout."""
    shapes = network.state_dict()
    blocks = len(network.blocks)
    expected: dict[str, tuple[int, ...]] = {}
    for ours, theirs in layout.convolutions(blocks).items():
        sides = tuple(shapes[f"{ours}.weight"].shape)
        expected |= {f"{theirs}.weight": sides, f"{theirs}.bias": sides[:1]}
    norms = (layer for layer in network.modules() if isinstance(layer, InstanceNorm))
    for theirs, norm in zip(layout.norms(blocks), norms, strict=True):
        expected |= dict.fromkeys((f"{theirs}.weight", f"{theirs}.bias"), (norm.features,))
    if missing := [key for key in expected if key not in tensors]:
        raise WeightsError(f"{refusal}: {missing[0]} is missing")
    if unknown := [key for key in tensors if key not in expected]:
        raise WeightsError(f"{refusal}: {unknown[0]} is unknown")
    for key, sides in expected.items():
        if (found := tuple(tensors[key].shape)) != sides:
            raise WeightsError(f"{refusal}: {key} has shape {shape(found)} instead of {shape(sides)}")


def converted(layout: Layout, tensors: Mapping[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """The weights of our network, by their names in it."""
    weights = {f"{ours}.weight": tensors[f"{theirs}.weight"] for ours, theirs in layout.convolutions(blocks).items()}
    mean, std = torch.tensor(layout.mean), torch.tensor(layout.std)
    # Our networks compute with 2 · RGB − 1, at the input and the output.
    weights["encoder.0.0.weight"] = weights["encoder.0.0.weight"] / (2 * std)[:, None, None]
    weights["decoder.2.weight"] = weights["decoder.2.weight"] * (2 * std)[:, None, None, None]
    weights["decoder.2.bias"] = 2 * (tensors[f"{layout.endings[-1]}.bias"] * std + mean) - 1
    numbers = {name: torch.cat([tensors[f"{name}.weight"], tensors[f"{name}.bias"]]) for name in layout.norms(blocks)}
    for i in range(blocks):  # the features before block i are divided by identities^i
        weights[f"blocks.{i}.body.0.weight"] = weights[f"blocks.{i}.body.0.weight"] * layout.identities**i
        numbers[f"res{i + 1}.in2"] = numbers[f"res{i + 1}.in2"] / layout.identities ** (i + 1)
    weights["decoder.0.1.weight"] = weights["decoder.0.1.weight"] * layout.identities**blocks
    return {**weights, "styles": torch.cat([*numbers.values()])[None, None]}
