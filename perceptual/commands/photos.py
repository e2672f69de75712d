"""Common parts of the commands that convert photos: arguments, names of results, and the loop over photos."""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from ..errors import (
    DeadlineExceeded,
    InputError,
    InternalError,
    InvalidOption,
    OutOfMemory,
    PerceptualError,
    WorkerDied,
)
from ..files import (
    EXTENSIONS,
    FULL,
    WHEN_FULL,
    check_apart,
    images_below,
    is_image,
    named_apart,
    suffix_of,
    write_atomically,
)
from .arguments import report

SUFFIXES = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}
STANDARD = Path("-")
OF_ONE_PHOTO = (InputError, OutOfMemory, DeadlineExceeded, WorkerDied, InternalError)  # others may do
STYLES = "styles"  # the network of many styles that ships


class Job(NamedTuple):
    """One photo to convert.

    Attributes:
        source: Its file; ``-`` for standard input.
        target: The result's; ``-`` for standard output.
        format: The result's format, one of :data:`perceptual.options.FORMATS`.
    """

    source: Path
    target: Path
    format: str

    def read(self) -> bytes:
        """The photo's content. Raises InvalidImage if it cannot be read."""
        from ..inference import images

        return sys.stdin.buffer.read() if self.source == STANDARD else images.read(self.source)

    def write(self, result: bytes) -> None:
        """Writes the result."""
        if self.target == STANDARD:
            sys.stdout.buffer.write(result)
            sys.stdout.buffer.flush()
        else:
            write_atomically(self.target, result)


def add_photos(parser: ArgumentParser) -> None:
    """Adds the arguments that name photos and the output."""
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO", help="image files, folders of them, or -")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="a file, or -, for one photo; else, or with / at its end, a folder. There, the result of a.png is a.jpg, "
        "or a.png.jpg if there are also other photos a.*; one with the result's own ending keeps its name",
    )
    add_machine(parser)


def add_learned(parser: ArgumentParser) -> None:
    """Adds the argument that names styles learned on the network."""
    parser.add_argument(
        "--learned",
        type=Path,
        action="append",
        default=[],
        metavar="STYLE",
        help="a style learned on this network, which --style can then name or mix: a file, or its name in networks/; "
        "may be repeated",
    )


def add_machine(parser: ArgumentParser) -> None:
    """Adds the arguments that choose device and engine."""
    parser.add_argument("--device", help="cpu, cuda, cuda:1, …; default: a GPU if any")
    parser.add_argument(
        "--engine",
        default="auto",
        metavar="{auto,eager,compile,openvino}",
        help="how the network is run (default: %(default)s)",
    )


def convert(
    jobs: list[Job],
    convert_one: Callable[[bytes, str], bytes],
    done: str,
    output: Path,
    others: list[Path],
) -> int:
    """Converts every photo; a bad one is reported and skipped. Prints a summary at the end, also if it is stopped.

    Args:
        jobs: The photos.
        convert_one: Maps a photo's content and a format to the result's content.
        done: A participle for the summary, such as ``stylized``.
        output: File or folder of the results.
        others: Files in the folders of photos that are not converted.

    Returns:
        1 if a photo failed, else 0.

    Raises:
        PerceptualError: The disk is full, or the server does not answer any more.
    """
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    finished = 0

    def summarize(end: str = "") -> None:
        where = f", in {output}" if finished else ""
        summary = f"{finished} of {len(jobs)} photos {done}{where}{ignored(others)}{end}"
        print(summary, file=sys.stderr if output == STANDARD else sys.stdout)

    try:
        for job in track(jobs, "working", console=console, transient=True, disable=not console.is_terminal):
            try:
                job.write(convert_one(job.read(), job.format))
                finished += 1
            except BrokenPipeError:  # of standard output
                raise
            except (*OF_ONE_PHOTO, OSError) as error:
                refuse_full(error, job.target)
                report(str(error) if str(job.source) in str(error) else f"{job.source}: {error}")
    except (KeyboardInterrupt, PerceptualError):
        summarize("; stopped")
        raise
    summarize()
    return 1 if finished < len(jobs) else 0


def refuse_full(error: BaseException, target: Path) -> None:
    """Raises PerceptualError for an error of writing a result that all further results would have too."""
    if isinstance(error, OSError) and error.errno in FULL:
        raise PerceptualError(f"cannot write {target}: {error.strerror}; {WHEN_FULL}") from error


def ignored(others: Sequence[PurePath]) -> str:
    """The end of the summary, about files that are not images: their number, and some names."""
    if not others:
        return ""
    names = ", ".join(file.name for file in others[:3]) + (", …" if len(others) > 3 else "")
    return f"; ignored {len(others)} other {'file' if len(others) == 1 else 'files'}: {names}"


def others_below(photos: Iterable[Path]) -> list[Path]:
    """The files in folders, and below them, whose names are not those of images."""
    return sorted(
        file
        for folder in photos
        if folder.is_dir()
        for file in folder.rglob("*")
        if file.is_file() and not is_image(file)
    )


def plan(photos: list[Path], output: str | Path, format: str | None) -> list[Job]:
    """Pairs every photo with the file of its result.

    Args:
        photos: Image files, or folders of them.
        output: A file, or a folder: text that ends in ``/`` always is one.
        format: That of the results; None for the file's, or JPEG.

    Raises:
        InvalidOption: The output does not fit the photos, or a result would overwrite a photo or another result, or be
            a photo itself.
    """
    into_folder = str(output).endswith("/") or Path(output).is_dir()
    output = Path(output)
    if STANDARD in (*photos, output) and (len(photos) > 1 or photos[0].is_dir() or into_folder):
        raise InvalidOption("- is for one photo or its result: name no other photo, and no folder")
    if output == STANDARD:
        return [Job(photos[0], output, format or "jpeg")]
    if len(photos) == 1 and not photos[0].is_dir() and output.suffix and not into_folder:
        if output.suffix.lower() not in SUFFIXES:
            raise InvalidOption(f"{output}: the name of the result must end in {', '.join(SUFFIXES)}")
        if format and SUFFIXES[output.suffix.lower()] != format:
            raise InvalidOption(f"{output}: its ending contradicts --format {format}")
        jobs = [(photos[0], output)]
    else:
        if not into_folder and (output.is_file() or output.suffix.lower() in SUFFIXES):
            raise InvalidOption(f"{output}: several photos need a folder as --output")
        found = [(file, output / name) for file, name in photos_among(photos)]
        jobs = named_apart(found, suffix_of(format))
    sources = {source.resolve() for source, _ in jobs if source != STANDARD}
    if overwriting := [target for _, target in jobs if target.resolve() in sources]:
        raise InvalidOption(f"{overwriting[0]} would overwrite a photo; choose another --output")
    check_outside(output, photos)
    check_apart(jobs)
    check_writable({target.parent for _, target in jobs})
    return [Job(source, target, SUFFIXES[target.suffix.lower()]) for source, target in jobs]


def check_outside(output: Path, photos: Iterable[Path]) -> None:
    """Raises InvalidOption if results would lie in a folder of photos, where a repeated command would find them."""
    if any(output.resolve().is_relative_to(each.resolve()) for each in photos if each.is_dir()):
        raise InvalidOption(
            f"results in {output} would be photos when the command is repeated; choose another --output"
        )


def check_writable(folders: Iterable[Path]) -> None:
    """Raises InvalidOption if a folder cannot be written to, before any work is done."""
    for folder in folders:
        nearest = next(each for each in (folder, *folder.resolve().parents) if each.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise InvalidOption(f"{folder}: cannot be written to; choose another --output")


def photos_among(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Files, and all images below folders, each with its relative path there.

    Raises:
        InvalidOption: The folders have no images.
    """
    found: list[tuple[Path, Path]] = []
    for path in paths:
        if path.is_dir():
            found += [(file, file.relative_to(path)) for file in images_below(path)]
        else:
            found.append((path, Path(path.name)))
    if not found:
        raise InvalidOption(f"no images in {paths[0]}; looked for {' '.join(EXTENSIONS)}")
    return found
