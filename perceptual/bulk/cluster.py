"""Ray: started on this machine, or found at an address; and the photos on its way to the actors and back as rows."""

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

MEMORY = 5 << 29  # bytes of an actor: a photo of 8192² takes 2.4 GiB with all libraries
STORE = 200 << 20  # bytes of Ray's object store on this machine: names and rows pass through it, no pictures
PATIENCE = 10.0  # seconds for a cluster to answer
BLOCK = 16  # photos that an actor is given at a time; of a lost machine as many are made again


class Share(NamedTuple):
    """What each actor has of its machine: processors, GPUs."""

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
    """Ray, for the length of a block, in which nothing is printed to standard output.

    Args:
        address: Of a cluster, or ``auto`` for the one that this machine belongs to; by default one is started here.
        cpus: How many processors the one that is started may use; by default all.

    Raises:
        PerceptualError: There is no cluster there, or one of other versions.
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
                ray.shutdown()  # until then it may print
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def check_listening(address: str) -> None:
    """Raises PerceptualError if nothing listens at an address, to which Ray would try to connect for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # auto: Ray knows where to look
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except OSError as error:
        raise PerceptualError(f"there is no Ray cluster at {address}: {error.strerror or error}") from error


@contextmanager
def no_greetings() -> Iterator[None]:
    """Hides what Ray prints while it starts; errors it raises."""
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
    """Turns errors of a Ray that does not start into a sentence. Raises PerceptualError."""
    try:
        yield
    except ConnectionError as error:
        raise PerceptualError(f"there is no Ray cluster at {address}: {in_one_line(error)}") from error
    except (RuntimeError, ValueError, OSError) as error:
        advice = "; install the versions that the cluster has" if "ersion" in str(error) else ""
        raise PerceptualError(f"cannot use Ray at {address or 'this machine'}: {in_one_line(error)}{advice}") from error


def quiet() -> None:
    """Leaves it to us to show progress, and errors once."""
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
    """How many actors there will be: as many as wanted, or as fit.

    Raises:
        InvalidOption: So many do not fit.
    """
    fitting = sum(share.fits(node["Resources"]) for node in alive())
    if fitting < (wanted or 1):
        gpus = f", {share.gpus:g} GPUs" if share.gpus else ""
        need = f"{share.cpus} processors{gpus} and {MEMORY / 2**30:g} GiB of memory"
        raise InvalidOption(f"{wanted or 1} actors of {need} do not fit on the machines at hand: {fitting} do")
    return wanted or fitting


def rows(tasks: Sequence[Task], converter: type, arguments: dict[str, Any], actors: int, share: Share) -> Iterator[Any]:
    """Tables of what became of photos, as :data:`.converter.ROWS`, as soon as they are done.

    Args:
        tasks: The photos.
        converter: The class of the actors.
        arguments: For its constructor; ``places`` are those that the tasks' photos name.
        actors: How many.
        share: What each has.

    Raises:
        PerceptualError: The actors do not start.
    """
    import ray.data
    from ray.exceptions import RayError

    size = max(1, min(BLOCK, len(tasks) // (4 * actors)))  # so small that all actors end at about the same time
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
    """Tasks as an actor is given them: the place by its index."""
    index = {id(place): number for number, place in enumerate(places)}
    return [
        {"place": index[id(task.photo.place)], "photo": task.photo.path, "result": str(task.result)} for task in tasks
    ]
