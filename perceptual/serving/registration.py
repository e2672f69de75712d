"""Registers weights files and archives with a running server, completely or not at all."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from PIL import Image

from ..archives.build import find_source, package, repackage
from ..archives.contents import read_contents
from ..archives.manifest import Archive, read_archive
from ..client.addresses import RunningServer
from ..client.management import ManagementClient
from ..client.model import Model, Worker
from ..errors import AlreadyRegistered, ArchiveError, PerceptualError, ServerError, WorkersFailed
from ..files import write_atomically
from ..locks import alone
from ..naming import ModelVersion
from ..undo import all_or_nothing, signals_deferred
from .scaling import scale
from .status import read_status

QUIET = 1.0  # seconds that a model must be idle: no metric counts a request on its way from the queue to the handler
LOCK = "registration.lock"  # in the server's folder
LOST = 5.0  # if workers use no processor time for so many seconds, open requests are lost: their worker has died
RESTING = 0.1  # seconds of processor time that count as none


def register(
    server: RunningServer,
    file: str | Path,
    *,
    version: str | None = None,
    workers: int | None = None,
    gpus: Sequence[int] | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> ModelVersion:
    """Packages a model, copies it to the server's model store, loads it, and warms it up with one request.

    The first version of a model becomes its default; a further one answers at ``name/version`` until
    :meth:`perceptual.ManagementClient.set_default`. If any step fails, all are undone, so the call can be repeated.

    Args:
        server: As from :func:`perceptual.find_server`.
        file: Weights (``.safetensors``) or an archive (``.mar``); or the name of an archive in the model store, or of
            a network.
        version: Replaces the one in the weights' provenance or the archive.
        workers: Number of workers; by default the archive's.
        gpus: GPUs over which the workers are distributed in turn; by default all of them, or those of the archive.
        progress: Called with a short description of each step.

    Returns:
        The model's name and version.

    Raises:
        WeightsError: The weights file is missing or damaged.
        InputError: It is neither weights nor an archive, its name cannot be served, or it is an archive of other
            software whose version or GPUs cannot be changed.
        ArchiveError: The archive is missing or damaged.
        AlreadyRegistered: The server has that version.
        WorkersFailed: The model fails to load.
        ServerError: The server does not answer.
    """
    with changing(server, progress) as (management, undo):
        return add(undo, server, management, Source(file, version, gpus), workers, progress)


@contextmanager
def changing(server: RunningServer, progress: Callable[[str], None]) -> Iterator[tuple[ManagementClient, ExitStack]]:
    """A client, and a stack of :func:`perceptual.undo.all_or_nothing`, while nobody else adds models to a server.

    Of two at the same time, the one that comes too late would undo what the other has done.
    """
    lock = Path(server.logs).parent / LOCK
    waiting = partial(progress, "waiting for another registration to end")
    with alone(lock, waiting), server.management() as management, all_or_nothing() as undo:
        yield management, undo


@dataclass(frozen=True)
class Source:
    """What to register.

    Attributes:
        file: Weights or an archive.
        version: Replaces its own.
        gpus: Replace its own.
        style: A style file, to be added to it.
        like: The served version that it follows, of which it takes over how requests are batched.
    """

    file: str | Path
    version: str | None = None
    gpus: Sequence[int] | None = None
    style: Path | None = None
    like: Model | None = None


def add(
    undo: ExitStack,
    server: RunningServer,
    management: ManagementClient,
    source: Source,
    workers: int | None,
    progress: Callable[[str], None],
) -> ModelVersion:
    """The steps of :func:`register`; ``undo`` is a stack of :func:`perceptual.undo.all_or_nothing`.

    Each step first pushes what undoes it: :func:`put_back` for the model store, :func:`forget` for the registration.
    """
    with tempfile.TemporaryDirectory(prefix="perceptual-") as folder:
        progress(f"packaging {source.file}")
        archive = as_archive(source, Path(server.model_store), Path(folder))
        check_is_new(management, archive.model)
        stored = into_store(archive, Path(server.model_store), undo)
    progress(f"loading {stored.name}")
    own = [archive.model]
    undo.callback(forget, management, own)
    try:
        load(management, stored, server.logs, source.like)
    except AlreadyRegistered:  # by another client, in the meantime
        own.clear()
        raise
    if source.gpus is not None:
        check_gpus(management, archive.model, source.gpus)
    if workers is not None:
        scale(server, archive.name, workers, archive.version, progress)
    if archive.is_ours and not archive.is_collection and workers != 0:  # a collection runs every network while it loads
        progress(f"warming up {archive.model}")
        warm_up(server, archive.model, stored)
    return archive.model


def unregister(server: RunningServer, name: str, version: str | None = None) -> None:
    """Removes a model or a version; a version that is not the default first answers the requests it has received.

    TorchServe alone would end the workers immediately, and running requests would get no answer.

    Raises:
        ServerError: No such model or version, or it is the default of several.
    """
    with server.management() as management:
        if version is not None and management.describe(name).version != version:
            wait_until_idle(server, management.describe(name, version))
        management.unregister(name, version)


def take_over(
    undo: ExitStack,
    server: RunningServer,
    management: ManagementClient,
    old: Model,
    new: ModelVersion,
    progress: Callable[[str], None],
) -> None:
    """Replaces a version by another that is warm; the old one answers its requests and is then unregistered."""
    if management.describe(old.name).version == old.version:
        undo.callback(make_default, management, old.id)
        management.set_default(*new)
    progress(f"letting {old.id} finish")
    wait_until_idle(server, old)
    with signals_deferred():
        undo.pop_all()
        management.unregister(*old.id)


def make_default(management: ManagementClient, model: ModelVersion) -> None:
    """Makes a version the default again, if it is still registered."""
    with suppress(ServerError):
        management.set_default(*model)


def wait_until_idle(server: RunningServer, model: Model) -> None:
    """Waits until a version that gets no new requests has answered those it has.

    Requests whose worker has died are never answered; they are ignored after :data:`LOST` seconds.
    """
    deadline = time.monotonic() + model.response_timeout
    idle_since = resting_since = time.monotonic()
    spent = 0.0
    while time.monotonic() < deadline:
        time.sleep(0.1)
        status = read_status(server).find(*model.id)
        now = time.monotonic()
        if status.waiting or abs(processor_time(status.workers) - spent) > RESTING:
            idle_since, resting_since, spent = now, now, processor_time(status.workers)
        if not status.idle:
            idle_since = now
        if now - idle_since > QUIET or now - resting_since > LOST:
            return


def processor_time(workers: Sequence[Worker]) -> float:
    """Processor time that workers have used so far, in seconds."""
    spent = 0.0
    for worker in workers:
        with suppress(psutil.Error, ValueError):  # ValueError: TorchServe gives -1 while there is no process
            times = psutil.Process(worker.pid).cpu_times()
            spent += times.user + times.system
    return spent


def as_archive(source: Source, model_store: Path, folder: Path) -> Archive:
    """The archive that a source is, or that is built from it in a folder. Raises as :func:`register`."""
    file = find_source(str(source.file), model_store)
    if file.suffix != ".mar":
        return read_archive(package(file, folder, version=source.version, device_ids=source.gpus).path)
    if source.version is None and source.gpus is None and source.style is None:
        return read_archive(file)
    packaged = repackage(file, folder, version=source.version, device_ids=source.gpus, style=source.style)
    return read_archive(packaged.path)


def check_is_new(management: ManagementClient, model: ModelVersion) -> None:
    """Raises AlreadyRegistered if a server has this version of the model, before anything is changed."""
    if any(each.id == model for each in management.every_version()):
        raise AlreadyRegistered(
            f"{model} is already registered; give the new one another --version, or unregister it first"
        )


def into_store(archive: Archive, model_store: Path, undo: ExitStack) -> Path:
    """Copies an archive to the model store, unless it is there already; returns its path there.

    It is named ``NAME.mar``, or ``NAME-VERSION.mar`` beside another version, as a restart needs both.

    Raises:
        ArchiveError: The model store has other models at both places.
        ServerError: It cannot be written.
    """
    if archive.path.resolve().parent == model_store.resolve():
        return archive.path
    places = [model_store / f"{archive.name}.mar", model_store / f"{archive.name}-{archive.version}.mar"]
    target = next((each for each in places if not each.exists() or read_archive(each).model == archive.model), None)
    if target is None:
        raise ArchiveError(f"{places[-1]} is of another model: rename it, or choose another --version")
    previous = target.read_bytes() if target.exists() else None  # not registered, but the user may still need it
    undo.callback(put_back, target, previous)
    try:
        write_atomically(target, archive.path.read_bytes())
    except OSError as error:
        raise ServerError(f"cannot write to the model store {model_store}: {error.strerror}") from error
    return target


def put_back(file: Path, content: bytes | None) -> None:
    """Restores a file's previous content; None removes the file."""
    if content is None:
        file.unlink(missing_ok=True)
    elif file.read_bytes() != content:
        write_atomically(file, content)


def load(management: ManagementClient, archive: Path, logs: str, like: Model | None) -> None:
    """Registers an archive of the model store, with batches as of another version.

    Raises:
        WorkersFailed: It fails to load; names the log.
        AlreadyRegistered: Another client has registered it.
    """
    batches = {"batch_size": like.batch_size, "max_batch_delay": like.batch_delay} if like else {}
    try:
        management.register(archive.name, **batches)
    except WorkersFailed as error:
        raise WorkersFailed(f"{error}: {logs}/model_log.log", error.model) from error


def check_gpus(management: ManagementClient, model: ModelVersion, gpus: Sequence[int]) -> None:
    """Raises ServerError if the server lacks one of the GPUs: TorchServe would silently ignore the whole list."""
    if management.describe(*model).gpus != tuple(gpus):
        raise ServerError(f"the server does not have all of the GPUs {', '.join(map(str, gpus))}")


def warm_up(server: RunningServer, model: ModelVersion, archive: Path) -> None:
    """Sends one small picture, so that the first user does not wait for one-time work."""
    contents = read_contents(archive)
    options = {"style": contents.styles[0].name} if contents.named else {}
    with server.inference() as inference:
        try:
            inference.predict(Image.new("RGB", (64, 64), "grey"), model.path, options)
        except PerceptualError as error:
            raise ServerError(f"{model} loads but does not answer: {error}") from error


def forget(management: ManagementClient, models: Sequence[ModelVersion]) -> None:
    """Unregisters models that were just registered, if TorchServe still has them."""
    for model in models:
        with suppress(ServerError):
            management.unregister(*model)
