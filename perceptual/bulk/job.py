"""The network and the options of a job, which are the same for all actors and are stored beside the results."""

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
from .places import errors_about

if TYPE_CHECKING:
    from ..inference.conversion import Conversion, Decode

NOTES = "bulk.json"  # beside the results: the network and the options
REPORT = "bulk.parquet"  # beside the results: a row for each photo


@dataclass(frozen=True)
class Job:
    """A network and its options; sent to the actors.

    Attributes:
        weights: Contents of files by name: first the network's, then a learned style's trunk, and further files.
        options: For all photos.
        device: As in :func:`perceptual.inference.predictor.load`.
        engine: As there.
        threads: Number of threads of an actor on a CPU.
        own_size: Whether large photos are stylized at their own size too.
        learned: Names of the files of styles that are added to the network.
        enlarger: Name of the file of the network that enlarges stylized photos.
    """

    weights: dict[str, bytes]
    options: StyleOptions | UpscaleOptions
    device: str | None
    engine: str
    threads: int
    own_size: bool = False
    learned: tuple[str, ...] = ()
    enlarger: str | None = None

    def conversion(self, decode: "Decode | None" = None) -> "Conversion":
        """The function that converts a photo. Raises as :class:`perceptual.inference.conversion.Conversion`."""
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
            enlarger = load(Path(folder, self.enlarger), self.device, self.engine) if self.enlarger else None
            return Conversion(predictor, self.options, upscaler, decode or decoding.decode, enlarger)

    def notes(self) -> bytes:
        """Everything on which results depend beside the photos, as JSON; a job with other notes makes them again."""
        notes = {
            "version": __version__,
            "weights": {name: hashlib.sha256(content).hexdigest() for name, content in self.weights.items()},
            "options": asdict(self.options),
            "device": self.device,
            "engine": self.engine,
            "threads": self.threads,
            "own_size": self.own_size,
            "learned": self.learned,
            "enlarger": self.enlarger,
        }
        return json.dumps(notes, indent=2).encode()


def check(
    model: str,
    options: StyleOptions | UpscaleOptions,
    engine: str,
    learned: Sequence[Path] = (),
    enlarger: Path | None = None,
) -> str:
    """Raises the errors that the actors would raise, except for a missing device; returns a participle for reports."""
    from ..inference.conversion import Conversion
    from ..inference.engines import check_name
    from ..inference.predictor import load

    check_name(engine)
    enlarging = load(enlarger, "cpu", "eager") if enlarger else None
    return Conversion(load(model, "cpu", "eager", styles=learned), options, enlarger=enlarging).done


def read_files(model: str, further: Sequence[Path] = ()) -> dict[str, bytes]:
    """The contents, by name, of a network's files, its own first, and of further ones, such as styles learned on it.

    Raises:
        WeightsError: There is no such network, or its trunk is missing.
        InvalidOption: Two files have the same name.
        InputError: A file cannot be read.
    """
    own = find_weights(model)
    files = [own, *([find_trunk(own)] if is_learned(read_metadata(own)) else ()), *further]
    if twice := [name for name, times in Counter(file.name for file in files).items() if times > 1]:
        raise InvalidOption(f"two files have the name {twice[0]}: rename one")
    with errors_about(model):
        return {file.name: file.read_bytes() for file in files}
