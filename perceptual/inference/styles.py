"""Learned styles: reads and writes their files, and adds them to trunks. Does not import torch.

A trunk is a style network without its table of styles. It is identified by a digest of its tensors, which does not
change when styles are added or removed. A style file holds one row of the table, S×P in half precision for S sizes of
strokes, and the digest of its trunk.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import WeightsError, in_one_line
from ..files import write_atomically
from ..naming import checked_name
from .metadata import (
    FORMAT,
    LEARNED,
    facts_of_styles,
    open_weights,
    own_weights,
    parse_metadata,
    read_metadata,
    shipped_weights,
)

if TYPE_CHECKING:
    import numpy as np

TABLE = "styles"  # of a trunk, N×S×P
ROW = "style"  # of a style file, S×P


class Weights(NamedTuple):
    """A weight file: its metadata, as from :func:`.metadata.read_metadata`, and its tensors."""

    metadata: dict[str, Any]
    tensors: dict[str, "np.ndarray[Any, Any]"]

    @property
    def is_trunk(self) -> bool:
        """Whether it has a table of styles, so that styles can be learned on it."""
        return TABLE in self.tensors and self.tensors[TABLE].ndim == 3 and self.tensors[TABLE].size > 0

    @property
    def trunk(self) -> str:
        """The digest of its trunk; for a learned style, of the trunk it was learned on."""
        return str(self.metadata["config"]["trunk"]) if is_learned(self.metadata) else trunk_digest(self.tensors)

    def encode(self) -> bytes:
        """The content of the file."""
        from safetensors.numpy import save

        strings = {name: json.dumps(self.metadata[name]) for name in ("config", "provenance")}
        return save(self.tensors, {"format": FORMAT, "task": self.metadata["task"], **strings})


def is_learned(metadata: Mapping[str, Any]) -> bool:
    """Whether metadata are those of a learned style."""
    return bool(metadata["task"] == LEARNED)


def read_weights(path: str | Path) -> Weights:
    """A weight file's content. Raises WeightsError as :func:`.metadata.read_metadata`."""
    with open_weights(path) as file:
        metadata = parse_metadata(path, file.metadata())
        return Weights(metadata, {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - no dictionary


def decode_weights(what: str, content: bytes) -> Weights:
    """As :func:`read_weights`, from a file's content; ``what`` names the file in errors."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, ValueError) as error:
        raise WeightsError(f"{what} is not a safetensors file, or is damaged: {in_one_line(error)}") from error
    return Weights(parse_metadata(what, header.get("__metadata__")), tensors)


def trunk_digest(tensors: Mapping[str, "np.ndarray[Any, Any]"]) -> str:
    """SHA-256 of a network's tensors as they are stored, without its styles."""
    digest = hashlib.sha256()
    for name in sorted(tensors.keys() - {TABLE}):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}\n".encode() + tensors[name].tobytes())
    return digest.hexdigest()


def save_style(path: str | Path, numbers: "np.ndarray[Any, Any]", trunk: str, provenance: Mapping[str, Any]) -> None:
    """Writes a style file, atomically.

    Args:
        path: The file; its name is the style's name.
        numbers: Scales and shifts of all norms, S×P.
        trunk: The digest of the trunk.
        provenance: The provenance, for the metadata.

    Raises:
        WeightsError: A number is not finite in half precision.
    """
    import numpy as np

    with np.errstate(over="ignore"):
        row = np.ascontiguousarray(numbers, np.float16)
    if not np.isfinite(row).all():
        raise WeightsError(f"not saved to {path}: the style is not finite in half precision")
    metadata = {"task": LEARNED, "config": {"trunk": trunk}, "provenance": dict(provenance)}
    write_atomically(path, Weights(metadata, {ROW: row}).encode())


def read_style(path: str | Path) -> Weights:
    """The content of a style file, S×P finite numbers. Raises WeightsError if it is another file, or damaged."""
    import numpy as np

    style = read_weights(path)
    if not is_learned(style.metadata):
        raise WeightsError(f"{path} is not a learned style but a network for {style.metadata['task']}")
    row = style.tensors.get(ROW)
    if len(style.tensors) != 1 or row is None or row.ndim != 2 or row.dtype != np.float16:
        raise WeightsError(f"{path} does not hold the parameters of a style")
    if not np.isfinite(row).all():
        raise WeightsError(f"{path} is damaged: not all numbers of the style are finite")
    return style


def read_trunk(path: str | Path) -> Weights:
    """The content of a trunk's file. Raises WeightsError if styles cannot be learned on it."""
    trunk = read_weights(path)
    if not trunk.is_trunk:
        raise WeightsError(
            f"{path} has no table of styles, so styles cannot be learned on it or added: train a trunk with "
            "perceptual train styles"
        )
    return trunk


def with_styles(what: str | Path, trunk: Weights, styles: Iterable[str | Path]) -> Weights:
    """A trunk with styles added to those that it has; each is named after its file.

    Args:
        what: The trunk's file; if the trunk has one style without a name, it is named after the file.
        trunk: Its content.
        styles: Style files.

    Raises:
        WeightsError: One is damaged, of another trunk, or has the name of another style.
        InputError: A name cannot be served.
    """
    import numpy as np

    provenance = trunk.metadata["provenance"]
    known = [*(provenance.get("styles") or facts_of_styles(trunk.metadata, Path(what).stem))]
    rows = [trunk.tensors[TABLE]]
    for file in map(Path, styles):
        rows.append(fitting_row(file, what, trunk))
        if file.stem in {each["name"] for each in known}:
            raise WeightsError(f"{what} has a style {file.stem} already: rename {file}")
        known.append(provenance_of(file))
    table = np.concatenate(rows)
    return Weights(
        {
            **trunk.metadata,
            "config": trunk.metadata["config"] | {"styles": len(table)},
            "provenance": provenance | {"styles": known},
        },
        trunk.tensors | {TABLE: table},
    )


def alone(file: Path) -> Weights:
    """A network of one learned style alone, on the trunk from :func:`find_trunk`. Raises as :func:`with_styles`."""
    path = find_trunk(file)
    trunk = read_trunk(path)
    row = fitting_row(file, path, trunk)
    config = trunk.metadata["config"] | {"styles": 1}
    return Weights({"task": "style", "config": config, "provenance": provenance_of(file)}, trunk.tensors | {TABLE: row})


def fitting_row(file: Path, what: str | Path, trunk: Weights) -> "np.ndarray[Any, Any]":
    """The parameters of a style file, 1×S×P. Raises WeightsError if they do not fit the trunk."""
    style = read_style(file)
    if style.trunk != trunk.trunk:
        raise WeightsError(
            f"{file} was learned on another trunk than {what}: its trunk has the digest {style.trunk[:12]}…, "
            f"and {what} {trunk.trunk[:12]}…"
        )
    row, expected = style.tensors[ROW], trunk.tensors[TABLE].shape[1:]
    if row.shape != expected:
        raise WeightsError(f"{file} has {shape(row.shape)} parameters, and styles of {what} have {shape(expected)}")
    return row[None].astype(trunk.tensors[TABLE].dtype)


def provenance_of(file: Path) -> dict[str, Any]:
    """The provenance of a learned style, with its file's name. Raises InputError if the name cannot be served."""
    checked_name(file.stem, f"{file}: rename the file")
    return {**read_metadata(file)["provenance"], "name": file.stem}


def find_trunk(style: str | Path) -> Path:
    """The trunk of a style file: in the same folder, in ``networks/``, or one that ships. Raises WeightsError."""
    digest = read_style(style).trunk
    beside = sorted(Path(style).parent.glob("*.safetensors"))
    for file in [*beside, *own_weights().values(), *shipped_weights().values()]:  # whatever their names
        with suppress(WeightsError):
            candidate = read_weights(file)
            if candidate.is_trunk and candidate.trunk == digest:
                return file
    raise WeightsError(
        f"the trunk of {style}, with the digest {digest[:12]}…, is neither beside it, nor in networks/, nor one that "
        "ships: copy it to one of these"
    )


def assemble(path: str | Path, styles: Sequence[str | Path] = ()) -> Weights:
    """The network of a weights file, with ``styles`` added; for a style file, its trunk with that style alone.

    Raises:
        WeightsError: As :func:`with_styles` and :func:`find_trunk`, or ``path`` is a style file and styles are given.
        InputError: A name cannot be served.
    """
    if is_learned(read_metadata(path)):
        if styles:
            raise WeightsError(f"{path} is a learned style: add all styles to their trunk instead")
        return alone(Path(path))
    return with_styles(path, read_trunk(path), styles) if styles else read_weights(path)


def shape(sides: Sequence[int]) -> str:
    """A shape as text: ``2×3200``."""
    return "×".join(map(str, sides)) or "a scalar"
