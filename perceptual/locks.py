"""File locks that end with their process, and temporary folders that are removed even after a process was killed."""

import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

LOCK = "lock"  # the file in a temporary folder that its process has locked
# A process can take its own locks again:
in_use: set[Path] = set()  # temporary folders of this process
in_this_process = threading.Lock()  # held by the thread that is alone


def take(path: Path) -> TextIO:
    """Creates, opens and locks a file. The lock ends with the process, or when the file is closed.

    Child processes do not share the lock: they may outlive this process for seconds when it is killed.

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
        file.close()  # another process has removed the file since


@contextmanager
def alone(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Locks a file for the length of a block, once other threads and processes have released it.

    Args:
        path: The file.
        waiting: Called again and again while another process holds it.
    """
    with in_this_process:
        while True:
            try:
                lock = take(path)
                break
            except BlockingIOError:
                waiting()
                time.sleep(0.1)
        with lock:
            yield


def remove_abandoned(parent: Path, prefix: str) -> None:
    """Removes this user's temporary folders whose processes were killed: those whose lock is free."""
    for folder in parent.glob(f"{prefix}*"):
        lock = folder / LOCK
        if folder.resolve() not in in_use and lock.is_file() and lock.stat().st_uid == os.getuid():
            with suppress(OSError), take(lock):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """An empty temporary folder below ``parent``, which is created; abandoned ones are removed first."""
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
