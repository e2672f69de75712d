"""Locks of running trainings, and temporary files that killed ones left behind."""

import atexit
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TextIO

from perceptual.errors import TrainingError

SCRATCH = "perceptual-"
LONGEST = 70  # bytes; data workers pass sockets there, whose paths may have 107


@contextmanager
def locked(path: Path, option: str) -> Iterator[None]:
    """Context manager: locks a file, which need not exist, by a lock file beside it.

    Raises:
        TrainingError: Another process holds it, or its folder cannot be written; names the option that chose it.
    """
    lock = path.with_name(f".{path.name}.lock")
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


def take(path: Path) -> TextIO:
    """Opens and locks a file, made with its folder. The lock ends with the process, or when the file is closed.

    It is this process's alone: data workers, which may outlive a killed training for seconds, do not share it.

    Raises:
        BlockingIOError: Another process holds it.
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("a")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # the one that held it has removed it since


@cache
def use_scratch_folder() -> None:
    """Gives this process's temporary files a folder of their own until it ends; removes those of killed trainings.

    Where the path of the temporary folder is long, its files stay there.
    """
    parent = Path(tempfile.gettempdir())
    for folder in parent.glob(f"{SCRATCH}*"):
        if folder.stat().st_uid == os.getuid() and (lock := folder / "lock").is_file():
            remove_if_free(folder, lock)
    if len(os.fsencode(parent / SCRATCH)) + 8 > LONGEST:
        return
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=parent))
    file = take(folder / "lock")
    tempfile.tempdir = str(folder)

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        file.close()

    atexit.register(remove)


def remove_if_free(folder: Path, lock: Path) -> None:
    """Removes a folder unless a process holds its lock."""
    with suppress(OSError), take(lock):
        shutil.rmtree(folder, ignore_errors=True)
