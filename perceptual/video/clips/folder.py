"""A folder of images as a clip."""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from ...errors import InputError, InvalidVideo
from ...files import EXTENSIONS, is_image
from ...inference import images
from .clip import Clip, Frame


class Folder(Clip):
    """Images of a folder, in the order of the numbers in their names, at a constant rate.

    A damaged image is replaced by the one before. Raises InvalidVideo if the folder has no images.
    """

    transparent = True

    def __init__(self, path: Path, fps: float) -> None:
        super().__init__(path)
        self.rate = Fraction(fps).limit_denominator(1001)
        self.time_base = 1 / self.rate
        self.files = sorted((file for file in path.iterdir() if is_image(file)), key=natural)
        self.count = len(self.files)
        if not self.files:
            raise InvalidVideo(f"{path}: no images in this folder; looked for {' '.join(EXTENSIONS)}")

    def __iter__(self) -> Iterator[Frame]:
        """See the base class."""
        picture = None
        for index, file in enumerate(self.files):
            try:
                picture = images.load(file)
            except InputError as error:
                if picture is None:
                    raise
                self.repeated += 1
                self.faults.append(str(error))
            yield Frame(picture, index, 1)


def natural(file: Path) -> list[tuple[int, str]]:
    """A key that sorts names by the numbers in them: 2 before 10."""
    parts = re.split(r"(\d+)", file.name)
    return [(int(part), part) if part.isdecimal() else (0, part) for part in parts]
