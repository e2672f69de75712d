"""Reads what an archive offers: its styles with their paintings, its scales and limits. Does not read weights."""

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import ArchiveError
from ..inference.metadata import facts_of_styles, parse_metadata
from .manifest import DAMAGE, files_of_networks, read_archive

PAINTS_SMALLER = "perceptual/inference/large.py"  # the code that stylizes large photos at a smaller size
LARGEST_HEADER = 2**24  # bytes; of a safetensors file, whose header is some kilobytes


@dataclass(frozen=True)
class Style:
    """A style of an archive.

    Attributes:
        name: Its name in requests.
        title: Title of the painting, or the name if that is not known.
        artist: Artist of the painting; empty if not known.
        network: The network that holds it; only styles of one network can be mixed.
        strokes: Whether it was learned for more than one size of strokes.
        grain: Whether photos get grain first.
    """

    name: str
    title: str
    artist: str
    network: str
    strokes: bool
    grain: bool


@dataclass(frozen=True)
class Contents:
    """The styles, scales and limits of an archive.

    Attributes:
        named: Whether a request must name a style.
        styles: The styles, in the order of the archive.
        scales: Factors of enlargement.
        blended: Those of them whose requests may choose a fidelity.
        max_pixels: Limit for a photo, or for the result if the photo is enlarged.
        large_painted_smaller: Whether large photos are stylized at a smaller size, so that strokes are visible.
    """

    named: bool
    styles: tuple[Style, ...]
    scales: tuple[int, ...]
    blended: tuple[int, ...]
    max_pixels: int
    large_painted_smaller: bool = False


def read_contents(archive: str | Path) -> Contents:
    """Reads the contents of an archive that this package built; those of other archives are empty.

    Raises:
        ArchiveError: It is missing or damaged.
        InputError: Its name or version is not valid for TorchServe.
        WeightsError: Its weights are damaged.
    """
    manifest = read_archive(archive)
    if not manifest.is_ours:
        return Contents(False, (), (), (), 0)
    try:
        with zipfile.ZipFile(archive) as file:
            networks = dict(read_networks(file))
            large = PAINTS_SMALLER in file.namelist()
            limits = yaml.safe_load(file.read(f"{manifest.handler}.yaml"))
        styles = tuple(each for name, network in networks.items() for each in styles_of(name, network))
        upscalers = [each["config"] for each in networks.values() if each["task"] == "super-resolution"]
        scales = tuple(sorted(int(each["scale"]) for each in upscalers))
        blended = tuple(sorted(int(each["scale"]) for each in upscalers if each.get("blended")))
        named = manifest.is_collection or len(styles) > 1
        return Contents(named, styles, scales, blended, int(limits["max_pixels"]), large and bool(styles))
    except (*DAMAGE, yaml.YAMLError) as error:
        raise ArchiveError(f"{archive} is damaged: {error}") from error


def read_networks(archive: zipfile.ZipFile) -> Iterator[tuple[str, dict[str, Any]]]:
    """The names of an archive's networks, each with the metadata of its file."""
    for path in files_of_networks(archive):
        with archive.open(path) as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, LARGEST_HEADER)))
        yield Path(path).stem, parse_metadata(f"{archive.filename}: {path}", header.get("__metadata__"))


def styles_of(name: str, network: Mapping[str, Any]) -> Iterator[Style]:
    """The styles of a network."""
    if network["task"] != "style":
        return
    every = facts_of_styles(network, name)
    strokes, grain = network["config"].get("sizes", 1) > 1, network["config"].get("grain", 0) > 0
    for facts in every:
        style = str(facts["name"])
        title = facts.get("title") or style.replace("_", " ").title()
        yield Style(style, str(title), str(facts.get("artist", "")), name, strokes, grain)
