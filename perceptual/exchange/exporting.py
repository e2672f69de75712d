"""Exports networks to other runtimes, and checks each against ours before it is written."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import __version__
from ..errors import ExportError, InputError, InvalidOption
from ..files import write_atomically
from ..inference.grain import with_grain
from ..inference.networks import StyleNetwork, SuperResolutionNetwork
from ..inference.predictor import Predictor, given, load
from ..locks import temporary_folder
from ..options import FIDELITY, StyleOptions, UpscaleOptions
from .formats import FORMATS
from .portable import portable

TOLERANCE = 1.0  # levels of 255
# Number, height and width of the pictures that are compared; odd and tiny sizes too, as padding depends on them.
CHECKED = (1, 96, 128), (2, 61, 83), (1, 5, 7)
WORK = ".perceptual-export-"  # prefix of temporary folders
TABLE = ".styles.json"  # ending of the table of styles


@dataclass(frozen=True)
class Exported:
    """The files written, and the differences between their pictures and ours, in levels of 255.

    Attributes:
        files: All files; the requested one is the last.
        largest: The largest difference of a value.
        mean: The mean absolute difference.
    """

    files: tuple[Path, ...]
    largest: float
    mean: float


def export(
    model: str | Path,
    format: str,
    output: str | Path,
    options: StyleOptions | None = None,
    *,
    fidelity: float | None = None,
    half: bool = False,
) -> Exported:
    """Exports a network for another runtime, and checks that its pictures differ from ours by at most 1/255.

    Input and output are RGB in [0, 1], in batches of any number, height and width. A style or mixture is baked in; if a
    network has several styles and none is named, the style is a second input, and a table of styles is written beside
    the file.

    Args:
        model: A weights file, or the name of a network that ships.
        format: One of :data:`.formats.FORMATS`.
        output: The file; for OpenVINO an .xml, with a .bin beside it.
        options: ``style``, ``stroke`` and ``grain`` are baked in.
        fidelity: Of a super-resolution network of two sets of weights, also baked in.
        half: Whether the weights of convolutions are stored in half precision.

    Raises:
        WeightsError: As :func:`perceptual.inference.predictor.load`.
        InputError: There is no such style, or the name of ``output`` does not fit the format.
        ExportError: The pictures differ.
    """
    output, options = Path(output), options or StyleOptions()
    refuse_name(format, output)
    predictor = settled(load(model, "cpu", engine="eager"), fidelity)
    several = len(predictor.styles) > 1 and not (options.style or options.stroke)
    baked = None if several else baked_style(predictor, options)
    grain = baked_grain(predictor, options)
    table = style_table(predictor) if several else {}
    with temporary_folder(output.parent, WORK) as folder:
        written = folder / output.name
        if table:
            beside(written).write_text(json.dumps(table, ensure_ascii=False))
        runtime: ModuleType = import_module(f".{format}", __package__)
        example = next(examples(table))
        chosen = given(fidelity=fidelity, grain=grain if predictor.styles else None)
        facts = describe(predictor, Path(model).stem, options, baked, {**chosen, "float16": half})
        runtime.write(portable(predictor.network, baked, grain=grain, half=half), example, facts, written, half)
        largest, mean = compare(predictor, baked, grain, written, runtime)
        if not largest <= TOLERANCE:  # true for NaN too
            raise ExportError(f"not written to {output}: its pictures differ from ours by {largest:.3g} levels of 255")
        files = [*(each for each in folder.iterdir() if each != written), written]
        for file in files:
            write_atomically(output.with_name(file.name), file.read_bytes())
    return Exported(tuple(output.with_name(file.name) for file in files), largest, mean)


def refuse_name(format: str, output: Path) -> None:
    """Raises InputError for an unknown format, or a name that does not fit it."""
    if format not in FORMATS:
        raise InvalidOption(f"format: expected {', '.join(FORMATS)}, got {format!r}")
    if output.is_dir():
        raise InputError(f"{output} is a folder: name a file")
    if output.suffix != FORMATS[format]:
        raise InputError(f"{output}: name a file that ends in {FORMATS[format]}")


def settled(predictor: Predictor, fidelity: float | None) -> Predictor:
    """The same with a super-resolution network of one set of weights, of a fidelity."""
    if not isinstance(predictor.network, SuperResolutionNetwork):
        if fidelity is not None:
            raise InvalidOption("fidelity: a network for style has none")
        return predictor
    predictor.conditions([UpscaleOptions(fidelity=fidelity)])  # raises if the network has no choice
    network = predictor.network.settled(FIDELITY if fidelity is None else fidelity)
    return Predictor(network, {**predictor.metadata, "config": network.config}, device="cpu")


def baked_style(predictor: Predictor, options: StyleOptions) -> Tensor | None:
    """The style to be baked in, 1×P; None for a network without norms. Raises InputError if there is no such style."""
    if predictor.styles:
        numbers = predictor.conditions([options])
        return numbers if numbers.numel() else None
    for name in ("style", "stroke"):
        if getattr(options, name):
            raise InvalidOption(f"{name}: a network for {predictor.network.task} has none")
    return None


def baked_grain(predictor: Predictor, options: StyleOptions) -> float:
    """Strength of the grain to be baked in. Raises InputError if the network is for another task."""
    if not predictor.styles and options.grain is not None:
        raise InvalidOption(f"grain: a network for {predictor.network.task} has none")
    return predictor.grain_of([options])[0]


def style_table(predictor: Predictor) -> dict[str, list[list[float]]]:
    """The parameters of each style, S×P: a row for each size of strokes."""
    # Five digits are exact for half precision, in which weights files store styles.
    styles = cast("StyleNetwork", predictor.network).styles.tolist()
    rows = [[[float(f"{each:.5g}") for each in size] for size in style] for style in styles]
    return dict(zip(predictor.styles, rows, strict=True))


def beside(output: Path) -> Path:
    """The path of the table of styles of an exported file."""
    return output.with_suffix(TABLE)


def describe(
    predictor: Predictor, name: str, options: StyleOptions, baked: Tensor | None, more: Mapping[str, Any]
) -> dict[str, str]:
    """The metadata of the file: the network's provenance, what was baked in, and more options."""
    provenance = predictor.metadata["provenance"]
    chosen = {"style": dict(options.style or ()), "stroke": options.stroke} if baked is not None else {}
    return {
        "name": name,
        "description": str(provenance.get("description", "")),
        "licence": str(provenance.get("licence", "")),
        "task": predictor.network.task,
        "scale": str(predictor.network.scale),
        "options": json.dumps({**chosen, **more}),
        "styles": json.dumps(predictor.styles if baked is None else []),
        "config": json.dumps(predictor.metadata["config"]),
        "provenance": json.dumps(provenance),
        "exporter": f"torchserve-perceptual {__version__}, torch {torch.__version__}",
    }


def examples(table: Mapping[str, Sequence[Sequence[float]]]) -> Iterator[dict[str, Tensor]]:
    """Inputs for the exported network: pictures with gradients and noise and, if the network has the input, styles."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor([size for style in table.values() for size in style])
    for number, height, width in CHECKED:
        coarse, fine = (torch.rand(number, 3, *size, generator=generator) for size in ((6, 8), (height, width)))
        smooth = F.interpolate(coarse, (height, width), mode="bicubic")
        inputs = {"images": (smooth + (fine - 0.5) / 4).clamp(0, 1)}
        if table:
            inputs["style"] = rows[torch.randint(len(rows), (number,), generator=generator)]
        yield inputs


def compare(
    predictor: Predictor, baked: Tensor | None, grain: float, file: Path, runtime: ModuleType
) -> tuple[float, float]:
    """The largest and the mean difference between a file's pictures and ours, in levels of 255."""
    run = runtime.load(file)
    table = json.loads(beside(file).read_text()) if beside(file).exists() else {}
    differences = []
    for inputs in examples(table):
        style = inputs.get("style", baked)
        with torch.inference_mode():
            grained = with_grain(inputs["images"], [grain] * len(inputs["images"]))
            ours = predictor.network(grained, *([] if style is None else [style]))
        theirs = torch.from_numpy(run({name: each.numpy() for name, each in inputs.items()}))
        differences.append((theirs - ours).abs().flatten() * 255)
    every = torch.cat(differences)
    return every.max().item(), every.mean().item()
