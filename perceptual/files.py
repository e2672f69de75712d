"""Writes files atomically, finds image files by their names, and names their results."""

import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path, PurePath
from typing import TypeVar

from .errors import InputError, InvalidOption

S = TypeVar("S")  # a photo: a path or another object
P = TypeVar("P", bound=PurePath)  # a result

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # errors that all further files would have too
WHEN_FULL = "stopped; repeat the command when there is space, and it can be written to"
EXTENSIONS = (".avif", ".bmp", ".gif", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def images_below(folder: Path) -> list[Path]:
    """All image files in a folder or anywhere below it, sorted by path."""
    return sorted(path for path in folder.rglob("*") if is_image(path) and path.is_file())


def is_image(path: PurePath) -> bool:
    """Whether a name is that of an image, and not of a file ``._NAME`` in which macOS stores attributes."""
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith("._")


def suffix_of(format: str | None) -> str:
    """The suffix of results in a format, by default JPEG."""
    return {None: ".jpg", "jpeg": ".jpg"}.get(format, f".{format}")


def path_of(photo: str | Path) -> Path:
    """The path of a photo that is neither bytes nor a PIL image. Raises InputError if it is no path either."""
    try:
        return Path(photo)
    except TypeError:
        kind = type(photo).__name__
        raise InputError(f"expected a path, the bytes of an image file, or a PIL image, got {kind}") from None


def named_apart(jobs: Sequence[tuple[S, P]], suffix: str) -> list[tuple[S, P]]:
    """Gives results another suffix: ``a.jpg`` for ``a.png``, or ``a.png.jpg`` if there is also ``a.tif`` or ``a.jpg``.

    The result of ``a.jpg`` is ``a.jpg`` in any case.
    """
    counts = Counter(target.with_suffix(suffix) for _, target in jobs)

    def renamed(target: P) -> P:
        alone = target.with_suffix(suffix)
        return alone if counts[alone] == 1 or alone == target else target.with_name(target.name + suffix)

    return [(source, renamed(target)) for source, target in jobs]


def check_apart(jobs: Iterable[tuple[object, PurePath]]) -> None:
    """Raises InvalidOption if two photos have the same result."""
    taken: dict[PurePath, object] = {}
    for source, target in jobs:
        if target in taken:
            raise InvalidOption(f"{taken[target]} and {source} would both become {target}; convert them one by one")
        taken[target] = source


def write_atomically(path: str | Path, content: bytes, mode: int = 0o666) -> None:
    """Writes a file completely, or leaves the old one unchanged, even if the machine stops. Creates the folder.

    Args:
        path: The file.
        content: All of its content.
        mode: Its permissions, from which the umask is subtracted.

    Raises:
        OSError: It cannot be written, such as on a full disk; the error names the path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)  # left by a process with the same id, perhaps with another mode
    try:
        with naming(path), os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def move_into_place(temporary: Path, path: Path) -> None:
    """Renames a finished file to its final path, which survives a crash of the machine."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Adds a path to OSErrors without one, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def remove_leftovers(path: Path) -> None:
    """Removes the temporary files of killed processes. The caller must be the only one that writes the file now."""
    for file in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        if file.name.removeprefix(f".{path.name}.").removesuffix(".tmp").isdecimal():
            file.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
