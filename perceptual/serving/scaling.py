"""Sets a model's number of workers, within what memory allows.

TorchServe alone starts any number of workers, one process each, until the machine has no memory left.
"""

import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from ..client.addresses import RunningServer
from ..client.model import Model
from ..errors import ServerError
from ..undo import all_or_nothing

CGROUPS = Path("/sys/fs/cgroup")
ENDED = "a worker ended just now; perceptual status shows more"


class Room(NamedTuple):
    """Room in main memory or a GPU's: how many workers ``fit``, bytes that one ``needs``, and ``free`` bytes."""

    fit: int
    needs: int
    free: int
    where: str


def scale(
    server: RunningServer,
    name: str,
    workers: int | None,
    version: str | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> int:
    """Sets the number of workers of a model's version, within what memory allows, and waits for them.

    The need of one worker is the peak memory of the model's workers so far; if none runs, one is started to measure it.
    On GPUs, the memory of each GPU is checked as well.

    Args:
        server: As from :func:`perceptual.find_server`.
        name: Of the model.
        workers: Number of workers; None for as many as memory allows, at most one for each core of the processor.
        version: By default the model's default version.
        progress: Called with a short description of each step.

    Returns:
        The new number of workers.

    Raises:
        WorkersFailed: A worker fails to start; then nothing has changed.
        ServerError: No such model, or that many workers do not fit.
    """
    with server.management() as management, all_or_nothing() as undo:
        before = management.describe(name, version).wanted
        if workers is not None and workers <= max(before, 1):
            management.scale(name, workers, version, progress)
            return workers
        undo.callback(management.restore_workers, name, before, version)
        if not management.ready_workers(name, version):
            management.scale(name, max(before, 1), version, progress)
        count = choose(server, management.describe(name, version), workers)
        management.scale(name, count, version, progress)
    return count


def choose(server: RunningServer, model: Model, number: int | None) -> int:
    """The requested number, or by default the largest that fits. Raises ServerError if the former does not fit."""
    rooms = [room_in_memory(server, model)]
    if model.on_gpu:
        rooms += room_on_gpus(model)
        if number is None and len(rooms) == 1:
            raise ServerError("nvidia-smi does not report what a worker takes, as in most containers: give a number")
    tightest = min(rooms, key=lambda room: room.fit)
    if number is None:
        return max(1, min(tightest.fit, cores(server.pid)))
    if number > tightest.fit:
        raise ServerError(
            f"{number} workers of {model.name} do not fit, {tightest.fit} do: one takes "
            f"{mebibytes(tightest.needs)}, and {mebibytes(tightest.free)} are free {tightest.where}"
        )
    return number


def room_in_memory(server: RunningServer, model: Model) -> Room:
    """Room in the machine's memory, which workers on a GPU need as well."""
    peaks = [peak(worker.pid) for worker in model.ready]
    if not peaks:
        raise ServerError(ENDED)
    needs, free = max(peaks), free_memory(server.pid)
    return Room(len(peaks) + free // needs, needs, free, "in memory")


def room_on_gpus(model: Model) -> list[Room]:
    """Room in the memory of the GPUs; empty if it is not known what a worker takes there.

    TorchServe assigns workers to GPUs in turn, so the fullest GPU decides.
    """
    taken: dict[int, int] = defaultdict(int)  # one process may have an entry on several GPUs
    for pid, used in ask_nvidia("compute-apps=pid,used_memory"):
        taken[pid] += used
    ours = [taken[worker.pid] for worker in model.ready if taken.get(worker.pid)]
    free = dict(ask_nvidia("gpu=index,memory.free"))
    gpus = model.gpus or tuple(free)
    if not ours:
        return []
    if not gpus or not free.keys() >= {*gpus}:
        raise ServerError("nvidia-smi does not report what is free on the GPUs, so it is not known what fits")
    needs = max(ours)
    fullest = min(gpus, key=lambda gpu: free[gpu])
    fit = len(model.ready) + len(gpus) * (free[fullest] // needs)
    return [Room(fit, needs, free[fullest], f"on GPU {fullest}")]


def ask_nvidia(query: str) -> Iterator[tuple[int, int]]:
    """Two columns of nvidia-smi: a number, and memory in bytes. Lines without these values are left out."""
    command = ["nvidia-smi", f"--query-{query}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ServerError(f"nvidia-smi fails, so what is free on the GPUs is not known: {error}") from error
    for line in answer.splitlines():
        if found := re.fullmatch(r"(\d+), *(\d+)", line.strip()):
            yield int(found[1]), int(found[2]) * 2**20


def peak(pid: int) -> int:
    """Peak resident memory of a process, in bytes.

    Raises:
        ServerError: It has just ended.
    """
    with suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()):
            return int(found[1]) * 1024
    raise ServerError(ENDED)


def free_memory(pid: int) -> int:
    """Bytes that a process can still allocate, within the limits of its control groups (cgroups version 2)."""
    return min([psutil.virtual_memory().available, *(left(group) for group in control_groups(pid))])


def control_groups(pid: int) -> list[Path]:
    """The control groups that limit a process's memory: its own and their parents."""
    try:
        name = re.search(r"^0::/(.*)$", Path(f"/proc/{pid}/cgroup").read_text(), re.MULTILINE)
    except OSError:
        return []
    group = CGROUPS / (name[1] if name else "")
    around = [group, *(each for each in group.parents if each.is_relative_to(CGROUPS))]
    return [each for each in around if limit(each) is not None]


def left(group: Path) -> int:
    """Bytes left of a control group's limit; cached files do not count as used."""
    cached = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
    taken = int((group / "memory.current").read_text()) - int(cached[1] if cached else 0)
    return max(0, (limit(group) or 0) - taken)


def limit(group: Path) -> int | None:
    """A control group's limit of memory, if it has one."""
    with suppress(OSError, ValueError):  # ValueError: the file says "max"
        return int((group / "memory.max").read_text())
    return None


def cores(pid: int) -> int:
    """The processor's cores that a process may use."""
    return len(os.sched_getaffinity(pid))


def mebibytes(size: int) -> str:
    """A size in MiB, as messages show it."""
    return f"{size // 2**20:,} MiB"
