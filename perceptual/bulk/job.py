"""What is wanted of the photos: the same on every machine, and noted beside the results."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import InvalidOption
from ..inference.metadata import find_weights, read_metadata
from ..inference.styles import find_trunk, is_learned
from ..options import StyleOptions, UpscaleOptions
from .places import Place, errors_about

if TYPE_CHECKING:
    from ..inference.conversion import Conversion, Decode

NOTES = "bulk.json"  # beside the results: how they were made
REPORT = "bulk.parquet"  # beside the results: a row for each photo


@dataclass(frozen=True)
class Job:
    """A network and what it shall do; travels to the actors.

    Attributes:
        weights: Contents by name: of the network's file first, of a learned style's trunk, and of further styles.
        options: For all photos.
        device: As in :func:`perceptual.inference.predictor.load`.
        engine: As there.
        threads: How many an actor computes with on a CPU.
        own_size: Whether large photos are painted at their own size too.
        learned: Names of files of styles that are added to those of the network.
    """

    weights: dict[str, bytes]
    options: StyleOptions | UpscaleOptions
    device: str | None
    engine: str
    threads: int
    own_size: bool = False
    learned: tuple[str, ...] = ()

    def conversion(self, decode: "Decode | None" = None) -> "Conversion":
        """What turns a photo into a result. Raises as :class:`perceptual.inference.conversion.Conversion`."""
        from ..inference.codecs import decoding
        from ..inference.conversion import Conversion, upscaler_on
        from ..inference.predictor import load

        with TemporaryDirectory(prefix="perceptual-") as folder:
            files = [Path(folder, name) for name in self.weights]
            for file, content in zip(files, self.weights.values(), strict=True):
                file.write_bytes(content)
            upscaler = None if self.own_size else upscaler_on(self.device, self.engine)
            learned = [Path(folder, name) for name in self.learned]
            predictor = load(files[0], self.device, self.engine, styles=learned)
            return Conversion(predictor, self.options, upscaler, decode or decoding.decode)

    def notes(self, inputs: Sequence[Place]) -> bytes:
        """All that decides how results look; a result is only as good as new if it was made so."""
        notes = {
            "version": __version__,
            "photos": sorted(each.address if not each.is_local else each.path for each in inputs),
            "weights": {name: hashlib.sha256(content).hexdigest() for name, content in self.weights.items()},
            "options": asdict(self.options),
            "device": self.device,
            "engine": self.engine,
            "threads": self.threads,
            "own_size": self.own_size,
            "learned": self.learned,
        }
        return json.dumps(notes, indent=2).encode()


def check(model: str, options: StyleOptions | UpscaleOptions, engine: str, learned: Sequence[Path] = ()) -> str:
    """Raises what all actors would, but for a device that only they have; returns the word for what is done."""
    from ..inference.conversion import Conversion
    from ..inference.engines import check_name
    from ..inference.predictor import load

    check_name(engine)
    return Conversion(load(model, "cpu", "eager", styles=learned), options).done


def read_files(model: str, learned: Sequence[Path] = ()) -> dict[str, bytes]:
    """The contents, by name, of a network's files, its own first, and of styles learned on it.

    Raises:
        WeightsError: There is no such network, or its trunk is not there.
        InvalidOption: Two files have one name.
        InputError: A file cannot be read.
    """
    own = find_weights(model)
    files = [own, *([find_trunk(own)] if is_learned(read_metadata(own)) else ()), *learned]
    if twice := [name for name, times in Counter(file.name for file in files).items() if times > 1]:
        raise InvalidOption(f"learned: two files are called {twice[0]}")
    with errors_about(model):
        return {file.name: file.read_bytes() for file in files}


def note_options(output: Place, notes: bytes) -> int:
    """Notes how results are made; returns since when they are made so, in nanoseconds since 1970.

    Raises:
        InputError: Nothing can be written there.
    """
    path = output.below(NOTES)
    with errors_about(output.address):
        there = output.filesystem.get_file_info(path)
        if not there.is_file or output.read(path) != notes:
            output.write(path, notes)
            there = output.filesystem.get_file_info(path)
    since: int = there.mtime_ns
    return since
