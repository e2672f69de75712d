"""Reads weights files of other projects, without running code in them."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import WeightsError, first_line

# Statistics that norms of PyTorch before 0.4 saved and no longer use.
OBSOLETE = re.compile(r"(.*\.)?in\d+\.(running_mean|running_var|num_batches_tracked)")
TENSORFLOW = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # at the end of its checkpoints
PICKLES = b"PK\x03\x04", b"\x80"  # at the beginning of files of torch.save, of PyTorch since 1.6 and before

NOT_TORCH = {
    "torch7": "is of Torch 7, whose networks pad and scale differently; only networks of PyTorch can be imported",
    "tensorflow": (
        "is a checkpoint of TensorFlow, as of lengstrom/fast-style-transfer. Its network pads with zeros and ours by "
        "reflection, so pictures would differ near their borders"
    ),
}
RRMINA = (
    "is of rrmina/fast-neural-style-pytorch. Its files do not show whether the network ends in a tanh, so an import "
    "could give other pictures"
)


def read_tensors(file: str | Path) -> dict[str, Tensor]:
    """The tensors in a file of ``torch.save``, on the CPU in float32, without obsolete ones.

    Args:
        file: A ``state_dict``, or a dictionary that has one under this key.

    Raises:
        WeightsError: The file is missing, of another kind, damaged, or holds more than plain data.
    """
    refuse_others(Path(file))
    state = load_plain_data(file)
    state = state.get("state_dict", state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(map(is_weight, state.values())):
        raise WeightsError(f"{file} holds no weights by name: save the network's state_dict()")
    if any(str(key).startswith("DeconvBlock.") for key in state):
        raise WeightsError(f"{file} {RRMINA}")
    return {str(key): value.float() for key, value in state.items() if not OBSOLETE.fullmatch(str(key))}


def refuse_others(file: Path) -> None:
    """Raises WeightsError for a file that is missing, or was not written by ``torch.save``."""
    try:
        with file.open("rb") as opened:
            beginning = opened.read(4)
            opened.seek(max(0, file.stat().st_size - len(TENSORFLOW)))
            end = opened.read()
    except FileNotFoundError as error:
        raise WeightsError(f"there is no file {file}") from error
    if file.suffix == ".t7":
        raise WeightsError(f"{file} {NOT_TORCH['torch7']}")
    if end == TENSORFLOW or ".ckpt" in file.name:
        raise WeightsError(f"{file} {NOT_TORCH['tensorflow']}")
    if not beginning.startswith(PICKLES):
        raise WeightsError(f"{file} was not written by torch.save, or is damaged")


def load_plain_data(file: str | Path) -> Any:
    """The content of a file of ``torch.save``. Raises WeightsError if it is more than plain data, or damaged."""
    from pickle import UnpicklingError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it finds unusual: it is refused below, or read all the same
            return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if "Unsupported global" in str(error) or "weights_only" in str(error):
            raise WeightsError(
                f"{file} holds more than weights, and could run code when loaded: save the network's state_dict() alone"
            ) from error
        raise WeightsError(f"{file} is damaged: {first_line(error)}") from error
    except Exception as error:  # PyTorch raises many kinds of errors for damaged files
        raise WeightsError(f"{file} is damaged, or not a file of torch.save: {first_line(error)}") from error


def is_weight(value: object) -> bool:
    """Whether a value is a dense, real tensor with data."""
    if not isinstance(value, Tensor) or value.is_meta:
        return False
    dense = value.layout == torch.strided and not value.is_quantized and not value.is_nested
    return dense and not value.is_complex()
