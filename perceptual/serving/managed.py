"""Manages the models of a server: completely on this machine, through the management API alone elsewhere."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..archives.build import find_source, is_style
from ..client.addresses import RemoteServer, RunningServer, ServerAddress
from ..errors import InputError
from ..naming import ModelVersion
from .learned import add_style
from .placement import place
from .registration import register, unregister
from .scaling import scale

Progress = Callable[[str], None]


class Managed(Protocol):
    """Registers, scales and unregisters the models of a server."""

    def register(
        self, file: str, version: str | None, workers: int | None, gpus: Sequence[int] | None, progress: Progress
    ) -> ModelVersion:
        """See :func:`perceptual.serving.registration.register`."""

    def scale(
        self, name: str, workers: int | None, version: str | None, gpus: Sequence[int] | None, progress: Progress
    ) -> tuple[str, int]:
        """Sets the number of workers. Returns the model, with its version if that is new, and its number of workers.

        See :func:`perceptual.serving.scaling.scale` and :func:`perceptual.serving.placement.place`.
        """

    def unregister(self, name: str, version: str | None) -> None:
        """See :func:`perceptual.serving.registration.unregister`."""


@dataclass(frozen=True)
class Local:
    """The models of a server of this machine."""

    server: RunningServer

    def register(
        self, file: str, version: str | None, workers: int | None, gpus: Sequence[int] | None, progress: Progress
    ) -> ModelVersion:
        """Registers a network or an archive; a learned style is added to the model that has its trunk."""
        source = find_source(file, Path(self.server.model_store))
        if source.suffix == ".safetensors" and is_style(source):
            if workers or gpus:
                raise InputError(
                    "a style is added to a running model, which keeps its workers: leave out --workers and --gpus"
                )
            return add_style(self.server, source, version, progress)
        return register(self.server, source, version=version, workers=workers, gpus=gpus, progress=progress)

    def scale(
        self, name: str, workers: int | None, version: str | None, gpus: Sequence[int] | None, progress: Progress
    ) -> tuple[str, int]:
        """Scales within what memory allows, on other GPUs if some are named."""
        if not gpus:
            return name, scale(self.server, name, workers, version, progress)
        model, count = place(self.server, name, gpus, workers, version, progress)
        return str(model), count

    def unregister(self, name: str, version: str | None) -> None:
        """Unregisters a version after it has answered the requests it has received."""
        unregister(self.server, name, version)


@dataclass(frozen=True)
class Remote:
    """The models of a server whose model store and memory are on another machine."""

    server: RemoteServer

    def register(
        self, file: str, version: str | None, workers: int | None, gpus: Sequence[int] | None, progress: Progress
    ) -> ModelVersion:
        """Registers an archive of the server's model store. Raises InputError for anything else."""
        if version or gpus or Path(file).name != file or Path(file).suffix == ".safetensors":
            raise InputError("with --url, only an archive in that server's model store can be registered")
        with self.server.management() as management:
            return management.register(f"{file.removesuffix('.mar')}.mar", workers=workers)

    def scale(
        self, name: str, workers: int | None, version: str | None, gpus: Sequence[int] | None, progress: Progress
    ) -> tuple[str, int]:
        """Scales. Raises InputError without a number of workers, or with GPUs."""
        if gpus:
            raise InputError("--gpus needs access to the model store: run it on the server's machine, without --url")
        if workers is None:
            raise InputError("with --url, the memory of the server's machine is not known: give the number of workers")
        with self.server.management() as management:
            management.scale(name, workers, version, progress)
        return name, workers

    def unregister(self, name: str, version: str | None) -> None:
        """Unregisters, without waiting for running requests."""
        with self.server.management() as management:
            management.unregister(name, version)


def managed(server: ServerAddress) -> Managed:
    """The implementation for a server: :class:`Local` or :class:`Remote`."""
    if isinstance(server, RunningServer):
        return Local(server)
    assert isinstance(server, RemoteServer)
    return Remote(server)
