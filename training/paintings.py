"""The paintings of a folder, and the catalogue that describes them."""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop

from perceptual.errors import InvalidImage, InvalidOption, TrainingError
from perceptual.inference import images
from perceptual.naming import checked_name

from .data import image_files
from .pictures import load_image

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CATALOGUE = "paintings.toml"
LEAST_SIDE = 64  # pixels; strokes of smaller images are too small for all layers
CONSTANT = 2  # levels of 255; a standard deviation below which a painting is of one colour


@dataclass(frozen=True)
class Painting:
    """A style image.

    Attributes:
        name: Name of its style: the file's name without its ending.
        path: The image file.
        facts: Its entry in the catalogue, such as ``title``, ``artist``, ``year`` and ``licence``.
        sha256: Digest of the file.
    """

    name: str
    path: Path
    facts: dict[str, Any]
    sha256: str

    def load(self, size: int) -> Tensor:
        """The painting on white, resized to a shorter side of ``size`` pixels: 1×3×H×W in [0, 1]."""
        return load_image(self.path, size)

    def square(self, size: int) -> Tensor:
        """The painting's centre, 3×``size``×``size`` in [0, 1]."""
        return center_crop(self.load(size)[0], [size, size])

    def provenance(self) -> dict[str, Any]:
        """Its entry in the weights' metadata."""
        return {"name": self.name, "style_image": self.path.name, "style_image_sha256": self.sha256, **self.facts}


def find_paintings(folder: Path) -> list[Painting]:
    """The paintings of a folder, by name. ``paintings.toml`` in it may have a table of facts for each.

    Raises:
        TrainingError: No such folder, or no images in it.
        InputError: A painting cannot be read, is smaller than 64 pixels or of one colour; two have the same name; or
            the catalogue is damaged or names a painting that does not exist.
    """
    files = [file for file in image_files(folder, "--style-dir") if file.parent == folder]
    if not files:
        raise TrainingError(f"no images in {folder} itself; name a folder of paintings with --style-dir")
    catalogue = read_catalogue(folder / CATALOGUE)
    paintings: dict[str, Painting] = {}
    for file in files:
        if file.stem in paintings:
            raise InvalidOption(
                f"{paintings[file.stem].path} and {file} would both be the style {file.stem}: rename one"
            )
        checked_name(file.stem, f"rename {file}")
        paintings[file.stem] = open_painting(file, catalogue.pop(file.stem, {}))
    if catalogue:
        raise InvalidOption(f"{folder / CATALOGUE} describes {', '.join(catalogue)}, but there is no such painting")
    return [paintings[name] for name in sorted(paintings)]


def open_painting(file: Path, facts: dict[str, Any]) -> Painting:
    """A painting, after validation. Raises InputError."""
    pixels = images.load(file).opaque()
    height, width = pixels.shape[1:]
    if min(height, width) < LEAST_SIDE:
        raise InvalidImage(f"{file}: {width}×{height} pixels are too few; a painting needs {LEAST_SIDE} a side")
    if torch.std(pixels.float(), dim=(1, 2)).max() < CONSTANT:
        raise InvalidImage(f"{file} is of one colour, and has no style")
    return Painting(file.stem, file, facts, hashlib.sha256(images.read(file)).hexdigest())


def read_catalogue(file: Path) -> dict[str, dict[str, Any]]:
    """The facts of each painting by name; none if there is no such file. Raises InvalidOption if it is not TOML."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidOption(f"{file}: {error}") from error


def digest(paintings: list[Painting]) -> str:
    """One digest for all of them, in their order."""
    return hashlib.sha256(" ".join(f"{each.name} {each.sha256}" for each in paintings).encode()).hexdigest()
