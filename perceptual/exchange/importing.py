"""Converts style networks of other projects to ours, which give the same pictures.

Nothing is approximated. A norm subtracts constants, so biases before norms and the constant part of the input's scaling
drop out; the other scalings are folded into the first and the last convolution. In a network whose blocks add their
input twice, features double from block to block. Divided by 2, 4, … they are those of blocks that add it once, and
powers of two cause no rounding.
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
from .foreign import read_tensors
from .layouts import LAYOUTS, Layout


def import_network(file: str | Path, layout: str | None = None, *, licence: str) -> tuple[StyleNetwork, dict[str, Any]]:
    """A network that gives the pictures of another project's network.

    Where 4 does not divide height or width, the other projects' picture is up to 3 px larger than the photo; ours is
    cropped to the photo's size.

    Args:
        file: As the project saves it.
        layout: One of :data:`.layouts.LAYOUTS`; by default found by the names of the weights.
        licence: Under which the network may be used.

    Returns:
        The network, in evaluation mode, and its provenance.

    Raises:
        WeightsError: The file cannot be read, as in :func:`.foreign.read_tensors`, or the network has another form.
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
    raise WeightsError(f"{file} is no style network of a project that can be imported ({known}): {found}")


def build(file: str | Path, name: str, tensors: Mapping[str, Tensor]) -> StyleNetwork:
    """The network of tensors in a layout. Raises WeightsError if they have another form."""
    layout = LAYOUTS[name]
    first = tensors.get("conv1.conv2d.weight", torch.empty(0))
    blocks = len({match[1] for key in tensors if (match := re.match(r"res(\d+)\.", key))})
    try:
        with torch.device("meta"):  # its form alone: what the file claims may be too large to be made
            network = StyleNetwork(
                init_features=len(first) if first.ndim else 0,
                num_residuals=blocks,
                upsampling="nearest",
                output="linear",
                multiple=1,
            )
    except (ValueError, RuntimeError) as error:
        raise WeightsError(f"{file} is no network of {name}: {in_one_line(error)}") from error
    check_form(f"{file} is no network of {name}", network, layout, tensors)
    network.load_state_dict(converted(layout, tensors, blocks), assign=True)
    return network.eval().requires_grad_(False)


def check_form(refusal: str, network: StyleNetwork, layout: Layout, tensors: Mapping[str, Tensor]) -> None:
    """Raises WeightsError unless the tensors are exactly those that such a network has in a layout."""
    shapes = network.state_dict()
    blocks = len(network.blocks)
    expected: dict[str, tuple[int, ...]] = {}
    for ours, theirs in layout.convolutions(blocks).items():
        shape = tuple(shapes[f"{ours}.weight"].shape)
        expected |= {f"{theirs}.weight": shape, f"{theirs}.bias": shape[:1]}
    norms = (layer for layer in network.modules() if isinstance(layer, InstanceNorm))
    for theirs, norm in zip(layout.norms(blocks), norms, strict=True):
        expected |= dict.fromkeys((f"{theirs}.weight", f"{theirs}.bias"), (norm.features,))
    if missing := [key for key in expected if key not in tensors]:
        raise WeightsError(f"{refusal}: it has no {missing[0]}")
    if unknown := [key for key in tensors if key not in expected]:
        raise WeightsError(f"{refusal}: that has no {unknown[0]}")
    for key, shape in expected.items():
        if (found := tuple(tensors[key].shape)) != shape:
            raise WeightsError(f"{refusal}: {key} is {form(found)}, and {form(shape)} there")


def converted(layout: Layout, tensors: Mapping[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """The weights of our network, by their names in it."""
    weights = {f"{ours}.weight": tensors[f"{theirs}.weight"] for ours, theirs in layout.convolutions(blocks).items()}
    mean, std = torch.tensor(layout.mean), torch.tensor(layout.std)
    # What enters is 2 · RGB − 1, and what leaves is taken as that.
    weights["encoder.0.0.weight"] = weights["encoder.0.0.weight"] / (2 * std)[:, None, None]
    weights["decoder.2.weight"] = weights["decoder.2.weight"] * (2 * std)[:, None, None, None]
    weights["decoder.2.bias"] = 2 * (tensors[f"{layout.endings[-1]}.bias"] * std + mean) - 1
    numbers = {name: torch.cat([tensors[f"{name}.weight"], tensors[f"{name}.bias"]]) for name in layout.norms(blocks)}
    for i in range(blocks):  # the features before block i are kept divided by identities^i
        weights[f"blocks.{i}.body.0.weight"] = weights[f"blocks.{i}.body.0.weight"] * layout.identities**i
        numbers[f"res{i + 1}.in2"] = numbers[f"res{i + 1}.in2"] / layout.identities ** (i + 1)
    weights["decoder.0.1.weight"] = weights["decoder.0.1.weight"] * layout.identities**blocks
    return {**weights, "styles": torch.cat([*numbers.values()])[None, None]}


def form(shape: tuple[int, ...]) -> str:
    """A shape as text: ``32×3×9×9``."""
    return "×".join(map(str, shape)) or "a number"
