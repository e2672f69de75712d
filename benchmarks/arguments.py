"""Values on the benchmarks' command lines."""

import re
from argparse import ArgumentTypeError
from typing import NamedTuple

from perceptual.commands.arguments import converter
from perceptual.settings import Integer

MULTIPLE = 8  # sides are multiples of it, so that inputs of super-resolution x8 have whole numbers of pixels

count = converter(Integer(1))


class Size(NamedTuple):
    """Width and height of an image, in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}²" if self.width == self.height else f"{self.width}×{self.height}"


def size(text: str) -> Size:
    """The size that ``512`` or ``1920x1080`` stands for."""
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    sides = [int(found[1]), int(found[2] or found[1])] if found else [0]
    if any(side < MULTIPLE or side % MULTIPLE for side in sides):
        raise ArgumentTypeError(f"expected such as 512 or 1920x1080, in multiples of {MULTIPLE}, got {text!r}")
    return Size(*sides)
