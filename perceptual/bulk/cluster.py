"""Starts Ray on this machine or connects to a cluster, and runs the actors."""

import logging
import math
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InvalidOption, PerceptualError, in_one_line
from .planning import Task

MEMORY = 5 << 29  # bytes for an actor: a photo of 8192² takes 2.4 GiB with all libraries
STORE = 200 << 20  # bytes of Ray's object store on this machine: names and rows pass through it, no pictures
PATIENCE = 10.0  # seconds for a cluster to answer
BLOCK = 16  # photos in a block, the unit that is passed to an actor, and repeated if a machine is lost


class Share(NamedTuple):
    """The processors and GPUs of one actor."""

    cpus: int
    gpus: float

    def fits(self, node: dict[str, float]) -> int:
        """How many actors fit on a machine."""
        counts = [node.get("CPU", 0) // self.cpus, node.get("memory", 0) // MEMORY]
        if self.gpus:
            counts.append(node.get("GPU", 0) // self.gpus)
        return int(min(counts))


@contextmanager
def connected(address: str | None, cpus: int | None) -> Iterator[None]:
    """Connects to Ray for the length of a ``with`` block, in which nothing is printed to standard output.

    Args:
        address: Of a cluster, or ``auto`` for the one that this machine belongs to; by default Ray is started here.
        cpus: Number of processors for a Ray that is started here; by default all.

    Raises:
        PerceptualError: There is no cluster at the address, or its versions are incompatible.
    """
    if address:
        check_listening(address)
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    folder = None
    if address is None:
        folder = tempfile.mkdtemp(prefix="perceptual-ray-")
        options |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": STORE, "_temp_dir": folder}
    try:
        with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing):  # Ray prints a page for each lost machine
            try:
                with cluster_errors(address), no_greetings():
                    ray.init(address or "local", **options)
                quiet()
                yield
            finally:
                ray.shutdown()  # Ray may print up to here
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def check_listening(address: str) -> None:
    """Raises PerceptualError if nothing listens at an address: Ray itself would retry for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # auto: Ray finds the address
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except OSError as error:
        raise PerceptualError(f"there is no Ray cluster at {address}: {error.strerror or error}") from error


@contextmanager
def no_greetings() -> Iterator[None]:
    """Suppresses what Ray prints while it starts."""
    terminal = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
            os.dup2(nothing.fileno(), 2)
            yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


@contextmanager
def cluster_errors(address: str | None) -> Iterator[None]:
    """Raises PerceptualError, with a message of one line, for errors of Ray while it starts."""
    try:
        yield
    except ConnectionError as error:
        raise PerceptualError(f"there is no Ray cluster at {address}: {in_one_line(error)}") from error
    except (RuntimeError, ValueError, OSError) as error:
        advice = "; install the versions that the cluster has" if "ersion" in str(error) else ""
        raise PerceptualError(f"cannot use Ray at {address or 'this machine'}: {in_one_line(error)}{advice}") from error


def quiet() -> None:
    """Disables Ray's own progress bars and messages."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # photos without a row are reported as failed
    for name in ("ray", "ray.data", "ray.data.dataset"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def alive() -> list[dict[str, Any]]:
    """The machines of the cluster."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def has_gpus() -> bool:
    """Whether the cluster has GPUs."""
    return any(node["Resources"].get("GPU") for node in alive())


def count_actors(wanted: int | None, share: Share) -> int:
    """The number of actors: as requested, or as many as fit.

    Raises:
        InvalidOption: They do not fit.
    """
    fitting = sum(share.fits(node["Resources"]) for node in alive())
    if fitting < (wanted or 1):
        gpus = f", {share.gpus:g} GPUs" if share.gpus else ""
        need = f"{share.cpus} processors{gpus} and {MEMORY / 2**30:g} GiB of memory"
        raise InvalidOption(f"{wanted or 1} actors of {need} do not fit on the machines of the cluster: {fitting} do")
    return wanted or fitting


def rows(tasks: Sequence[Task], converter: type, arguments: dict[str, Any], actors: int, share: Share) -> Iterator[Any]:
    """Converts photos; yields tables of their outcomes, as :data:`.converter.ROWS`, as soon as they are done.

    Args:
        tasks: The photos.
        converter: The class of the actors.
        arguments: For its constructor; ``places`` has the place of every photo.
        actors: Number of actors.
        share: Processors and GPUs of each.

    Raises:
        PerceptualError: The actors do not start.
    """
    import ray.data
    from ray.exceptions import RayError

    size = max(1, min(BLOCK, len(tasks) // (4 * actors)))  # small blocks, so that all actors end at about the same time
    items = as_items(tasks, arguments["places"])
    data = ray.data.from_items(items, override_num_blocks=math.ceil(len(items) / size)).map_batches(
        converter,
        fn_constructor_kwargs=arguments,
        batch_size=size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=share.cpus,
        num_gpus=share.gpus,
        memory=MEMORY,
    )
    try:
        yield from data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    except RayError as error:
        raise PerceptualError(f"Ray stopped: {in_one_line(error)}") from error


def as_items(tasks: Sequence[Task], places: Sequence[Any]) -> list[dict[str, Any]]:
    """Tasks as an actor receives them, with the index of the place."""
    index = {id(place): number for number, place in enumerate(places)}
    return [
        {"place": index[id(task.photo.place)], "photo": task.photo.path, "result": str(task.result)} for task in tasks
    ]
