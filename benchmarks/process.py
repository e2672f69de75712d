"""Work in a process of its own, and how much memory that took."""

import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

import psutil
import torch

from perceptual.errors import OutOfMemory

P = ParamSpec("P")
T = TypeVar("T")

GIB = 2**30


def in_own_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """A function's result, of a new process: nothing of what this one holds or has held is in its memory.

    Args:
        function: Of a module, so that the process finds it.
        args: What it is called with.
        kwargs: As well.

    Raises:
        OutOfMemory: The process was killed.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool as error:
            raise OutOfMemory("a process was killed, likely as memory ran out: choose smaller sizes") from error


def held(device: torch.device) -> float:
    """The memory, in GiB, that this process holds now: a GPU's, or the process's own."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / GIB
    return psutil.Process().memory_info().rss / GIB


def peak(device: torch.device) -> float:
    """The most memory, in GiB, that this process has held so far, as :func:`held`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    # getrusage would report the parent's peak if it was higher.
    (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kib) * 1024 / GIB
