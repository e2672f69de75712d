"""Runs functions in a separate process, and measures memory."""

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
    """Runs a function in a new process, whose memory has nothing of this process.

    Args:
        function: A function of a module, so that the process can import it.
        args: Positional arguments.
        kwargs: Keyword arguments.

    Raises:
        OutOfMemory: The process was killed.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool as error:
            raise OutOfMemory("a process was killed, probably for lack of memory: choose smaller sizes") from error


def in_use(device: torch.device) -> float:
    """The memory, in GiB, that this process holds now: a GPU's, or the process's own."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / GIB
    return psutil.Process().memory_info().rss / GIB


def peak(device: torch.device) -> float:
    """The peak memory of this process so far, in GiB; of a GPU or of the process, as :func:`in_use`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    # getrusage would report the parent's peak if it was higher.
    (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kib) * 1024 / GIB
