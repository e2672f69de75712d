"""A folder of images as a result."""

import shutil
from pathlib import Path

from ...errors import InvalidOption
from ...files import sync_folder, write_atomically
from ...inference import images
from ...inference.images import Picture
from ..clips import Clip, Frame
from ..clips.folder import Folder
from .sink import Sink, check_origin

ORIGIN = ".origin"  # a file of the partial folder


class FolderSink(Sink):
    """A folder with one image for each frame, named as in the source if that is a folder, else numbered from 1.

    Args:
        clip: The source.
        target: The folder; must be empty or missing.
        format: Of the images; one of :data:`perceptual.options.FORMATS`.
        quality: As for :func:`perceptual.inference.images.encode`.
        origin: Digest of source, networks and options; a partial folder of another origin is not resumed.
        resume: Keep the images that an earlier run has written; else they are removed.

    Raises:
        InvalidOption: The folder is not empty, the partial one is of another origin or not of an earlier run, or two
            images would get the same name.
    """

    def __init__(self, clip: Clip, target: Path, format: str, quality: int, origin: str, *, resume: bool) -> None:
        super().__init__(target)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise InvalidOption(f"{target}: is not empty; choose another --output")
        self.format, self.quality = format, quality
        self.names = [file.stem for file in clip.files] if isinstance(clip, Folder) else None
        if self.names and len(set(self.names)) < len(self.names):
            raise InvalidOption(f"{clip.path}: two images differ only in their endings; rename one")
        self.begin(origin, resume)
        self.index = 0
        while resume and self.file(self.done).exists():
            self.done += 1
        self.index = self.done

    def begin(self, origin: str, resume: bool) -> None:
        """Makes the partial folder, without the images of an earlier run unless these are to be kept."""
        note = self.part / ORIGIN
        if note.exists():
            if resume:
                check_origin(self.part, note.read_text(), origin)
                return
            shutil.rmtree(self.part)
        self.part.mkdir(parents=True, exist_ok=True)
        if any(self.part.iterdir()):
            raise InvalidOption(
                f"{self.part}: is not a partial result of this version; move it, or choose another --output"
            )
        write_atomically(note, origin.encode())

    def file(self, index: int) -> Path:
        """The path of a frame's image."""
        ending = {"jpeg": "jpg"}.get(self.format, self.format)
        if self.names is None:
            return self.part / f"{index + 1:06}.{ending}"
        return self.part / (f"{self.names[index]}.{ending}" if index < len(self.names) else "none")

    def last(self) -> Picture:
        """See the base class."""
        return images.load(self.file(self.done - 1))

    def write(self, frame: Frame) -> None:
        """See the base class."""
        write_atomically(self.file(self.index), images.encode(frame.picture, self.format, self.quality))
        self.index += 1

    def finish(self) -> None:
        """See the base class; every image is already complete."""

    def publish(self) -> None:
        """See the base class."""
        if self.target.exists():
            self.target.rmdir()
        self.part.rename(self.target)
        (self.target / ORIGIN).unlink()
        sync_folder(self.target.parent)
