"""Locks that end with the process that holds them, and folders of work that killed processes cannot leave for long."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

LOCK = "lock"  # the file in a folder of work that its process has locked
in_use: set[Path] = set()  # folders of work of this process, which its own locks would not keep out


def take(path: Path) -> TextIO:
    """Opens and locks a file, made with its folder. The lock ends with the process, or when the file is closed.

    It is this process's alone: its children, which may outlive it for seconds when it is killed, do not share it.

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


def remove_abandoned(parent: Path, prefix: str) -> None:
    """Removes this user's folders of work in a folder whose processes were killed, known by a lock nobody holds."""
    for folder in parent.glob(f"{prefix}*"):
        lock = folder / LOCK
        if folder.resolve() not in in_use and lock.is_file() and lock.stat().st_uid == os.getuid():
            with suppress(OSError), take(lock):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def folder_of_work(parent: Path, prefix: str) -> Iterator[Path]:
    """Context manager: an empty folder below ``parent``, which is made; first removes those that were abandoned."""
    parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(parent, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).resolve()
    in_use.add(folder)
    try:
        with take(folder / LOCK):
            inner = folder / "work"
            inner.mkdir()
            yield inner
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        in_use.remove(folder)
