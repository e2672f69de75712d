"""Registers weights and archives from anywhere with a running server, completely or not at all."""

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from ..archives.build import COLLECTION, DIGEST, package, repackage
from ..archives.manifest import read_archive, read_manifest
from ..client.addresses import RunningServer
from ..client.management import FAILED, ManagementClient, Registered
from ..errors import InputError, PerceptualError, ServerError
from ..files import write_atomically
from .scaling import scale
from .status import Worker, read_status

QUIET = 1.0  # seconds of idleness: a request on its way from the queue to the handler is not seen for a moment
LOST = 5.0  # seconds without idleness in which nevertheless no worker has computed
RESTING = 0.1  # seconds of the processor that a worker may take in that time


def register(
    server: RunningServer,
    file: str | Path,
    *,
    version: str | None = None,
    workers: int | None = None,
    gpus: Sequence[int] | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> Registered:
    """Brings a model into a server: packaged, in its model store, loaded, and warmed up with one request.

    The first version of a model becomes its default; a further one answers at ``name/version`` until
    :meth:`perceptual.ManagementClient.set_default`. If any step fails, nothing of it is left, so it can be repeated.

    Args:
        server: As from :func:`perceptual.find_server`.
        file: Weights (``.safetensors``) or an archive (``.mar``); the latter may also be just its name in the store.
        version: Instead of the one in the weights' provenance or the archive.
        workers: How many; by default what the archive says.
        gpus: Over which the workers are spread in turn; by default all of them, or those of the archive.
        progress: Is told in a few words what is going on.

    Returns:
        The model's name and version.

    Raises:
        WeightsError: The weights file is missing or damaged.
        InputError: It is neither weights nor an archive, cannot be served under its name, or is another's archive,
            whose version and GPUs cannot be changed.
        ServerError: That version is registered already, or the model fails to load or to answer.
    """
    with (
        tempfile.TemporaryDirectory(prefix="perceptual-") as folder,
        server.management() as management,
        ExitStack() as undo,
    ):
        progress(f"packaging {file}")
        archive = as_archive(Path(file), Path(server.model_store), Path(folder), version, gpus)
        check_is_new(management, archive)
        stored = into_store(archive, Path(server.model_store), undo)
        progress(f"loading {stored.name}")
        registered = load(management, stored, server.logs)
        undo.callback(forget, management, registered)
        if gpus is not None:
            check_gpus(management, registered, gpus)
        if workers is not None:
            scale(server, registered.name, workers, registered.version, progress)
        manifest = read_manifest(stored)
        # Only of our own is it known what they take; a collection has run every network as it loaded.
        if DIGEST in manifest and manifest["model"]["handler"] != f"{COLLECTION}.py":
            progress(f"warming up {registered.name} {registered.version}")
            warm_up(server, registered)
        undo.pop_all()
    return registered


def unregister(server: RunningServer, name: str, version: str | None = None) -> None:
    """Removes a model, or a version that is not its default after it has answered the requests it was given.

    TorchServe alone would end the workers at once, and leave who waits for them without any answer.

    Raises:
        ServerError: No such model or version, or it is the default of several.
    """
    with server.management() as management:
        if version is not None and management.describe(name)["modelVersion"] != version:
            wait_until_idle(server, management.describe(name, version))
        management.unregister(name, version)


def wait_until_idle(server: RunningServer, described: dict[str, Any]) -> None:
    """Waits until a version that gets no new requests has answered them, or cannot: those that died with a worker."""
    deadline = time.monotonic() + described["responseTimeout"]
    idle_since = resting_since = time.monotonic()
    spent = 0.0
    while time.monotonic() < deadline:
        time.sleep(0.1)
        status = read_status(server).find(described["modelName"], described["modelVersion"])
        now = time.monotonic()
        if status.waiting or abs(processor_time(status.workers) - spent) > RESTING:
            idle_since, resting_since, spent = now, now, processor_time(status.workers)
        if not status.idle:
            idle_since = now
        if now - idle_since > QUIET or now - resting_since > LOST:
            return


def processor_time(workers: Sequence[Worker]) -> float:
    """Seconds of the processor that workers have spent so far."""
    spent = 0.0
    for worker in workers:
        with suppress(psutil.Error, ValueError):  # ValueError: TorchServe gives -1 while there is no process
            times = psutil.Process(worker.pid).cpu_times()
            spent += times.user + times.system
    return spent


def as_archive(file: Path, model_store: Path, folder: Path, version: str | None, gpus: Sequence[int] | None) -> Path:
    """The archive that a file is, or that is built from it in a folder. Raises as :func:`register`."""
    if str(file).startswith(("http:", "https:")):
        raise InputError(f"{file} is no file of this machine: download it first")
    if file.suffix == ".safetensors":
        return package(file, folder, version=version, device_ids=gpus).path
    if file.suffix != ".mar":
        raise InputError(f"{file} is neither weights (.safetensors) nor an archive (.mar)")
    archive = model_store / file if file.name == str(file) and not file.exists() else file
    changed = version is not None or gpus is not None
    return repackage(archive, folder, version=version, device_ids=gpus).path if changed else archive


def check_is_new(management: ManagementClient, file: Path) -> None:
    """Raises ServerError if a server has this version of the model, before anything is touched."""
    archive = read_archive(file)
    if archive.name in management.models():
        known = [each["modelVersion"] for each in management.versions(archive.name)]
        if archive.version in known:
            raise ServerError(
                f"{archive.name} {archive.version} is already registered; "
                "give the new one another --version, or unregister it first"
            )


def into_store(file: Path, model_store: Path, undo: ExitStack) -> Path:
    """An archive's place in the model store, where it is copied unless it lies there already.

    Named ``NAME.mar``, or ``NAME-VERSION.mar`` beside another version, as a restart needs both.

    Raises:
        ServerError: The model store cannot be written, or has other models at both places.
    """
    if file.resolve().parent == model_store.resolve():
        return file
    archive = read_archive(file)
    target = model_store / f"{archive.name}.mar"
    if target.exists() and read_archive(target)[1:] != archive[1:]:
        target = model_store / f"{archive.name}-{archive.version}.mar"
        if target.exists() and read_archive(target)[1:] != archive[1:]:
            raise ServerError(f"{target} holds another model: rename it, or choose another --version")
    previous = target.read_bytes() if target.exists() else None  # not registered, but not ours to lose
    try:
        write_atomically(target, file.read_bytes())
    except OSError as error:
        raise ServerError(f"cannot write to the model store {model_store}: {error.strerror}") from error
    undo.callback(target.unlink) if previous is None else undo.callback(write_atomically, target, previous)
    return target


def load(management: ManagementClient, archive: Path, logs: str) -> Registered:
    """Registers an archive of the model store. Raises ServerError, which names the log if that says more."""
    try:
        return management.register(archive.name)
    except ServerError as error:
        if "already registered" not in str(error):  # then it may have loaded, but too late to be told
            forget(management, Registered(*read_archive(archive)[1:]))
        if FAILED.search(str(error)):
            raise ServerError(f"{error}: {logs}/model_log.log") from error
        raise


def check_gpus(management: ManagementClient, model: Registered, gpus: Sequence[int]) -> None:
    """Raises ServerError if the server lacks one of the GPUs: TorchServe then passes over the whole list, silently."""
    if management.describe(*model).get("deviceIds") != [*gpus]:
        raise ServerError(f"the server does not have all of the GPUs {', '.join(map(str, gpus))}")


def warm_up(server: RunningServer, model: Registered) -> None:
    """Sends one small picture, so that the first user does not wait for what happens only once."""
    with server.inference() as inference:
        try:
            inference.predict(Image.new("RGB", (64, 64), "grey"), f"{model.name}/{model.version}", {})
        except PerceptualError as error:
            raise ServerError(f"{model.name} {model.version} loads but does not answer: {error}") from error


def forget(management: ManagementClient, model: Registered) -> None:
    """Unregisters what was just registered, as far as that still goes."""
    with suppress(ServerError):
        management.unregister(*model)
