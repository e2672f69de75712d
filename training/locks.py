"""Locks of running trainings, and removal of temporary files of killed ones."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from perceptual.errors import TrainingError
from perceptual.locks import LOCK, remove_abandoned, take

SCRATCH = "perceptual-"
LONGEST = 70  # bytes; data workers create sockets in the folder, whose paths may have 107 bytes


@contextmanager
def locked(path: Path, option: str) -> Iterator[None]:
    """Context manager: locks a file, which need not exist, by a lock file beside it.

    Folders that it creates are removed if they are empty at the end.

    Raises:
        TrainingError: Another process holds it, or its folder cannot be written; names the option that chose it.
    """
    lock = path.with_name(f".{path.name}.lock")
    created = [folder for folder in lock.parents if not folder.exists()]
    try:
        file = take(lock)
    except BlockingIOError:
        raise TrainingError(f"another training writes to {path} now: wait for it, or choose another {option}") from None
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error.strerror}; choose another {option}") from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        file.close()
        for folder in created:
            with suppress(OSError):  # not empty
                folder.rmdir()


@cache
def use_scratch_folder() -> None:
    """Gives this process's temporary files a folder of their own until it ends; removes those of killed trainings.

    If the path of the system's temporary folder is long, that folder is used itself.
    """
    parent = Path(tempfile.gettempdir())
    remove_abandoned(parent, SCRATCH)
    if len(os.fsencode(parent / SCRATCH)) + 8 > LONGEST:
        return
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=parent))
    file = take(folder / LOCK)
    tempfile.tempdir = str(folder)

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        file.close()

    atexit.register(remove)
