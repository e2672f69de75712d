"""The client of the management API: registers, scales and unregisters models."""

import re
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from requests.auth import AuthBase

from ..errors import AlreadyRegistered, ServerError
from ..naming import ModelVersion
from ..undo import all_or_nothing
from .connection import Client
from .model import Model

LOADING = 660.0  # seconds; more than startupTimeout in the archives' yaml
APPEARANCE = 2.0  # seconds within which a model may still appear after its registration was interrupted
SETTLE = 10.0  # seconds to wait for workers to be ready after TorchServe's reply; usually it takes milliseconds

# TorchServe's message: the only reply with the name and version from the manifest.
REGISTERED = re.compile(r'Model "(.+?)" Version: (\S+) registered')


class ManagementClient(Client):
    """Registers, scales and unregisters the models of a server.

    Args:
        url: The server's management address.
        auth: :class:`Tokens` of kind ``management``; None for a server with token authorization off.
        timeout: Seconds to wait for a reply; loading a model takes a while.
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8081", auth: AuthBase | None = None, timeout: float = LOADING
    ) -> None:
        super().__init__(url, auth, timeout)

    def models(self) -> dict[str, str]:
        """The registered models: name and archive."""
        found: dict[str, str] = {}
        page: dict[str, Any] = {"nextPageToken": 0}
        while "nextPageToken" in page:
            page = self.send("GET", "/models", params={"next_page_token": page["nextPageToken"]}).json()
            found |= {each["modelName"]: each["modelUrl"] for each in page["models"]}
        return found

    def describe(self, name: str, version: str | None = None) -> Model:
        """A model's default version, or another.

        Raises:
            ServerError: No such model or version.
        """
        return Model.parse(self.send("GET", model_path(name, version)).json()[0])

    def capabilities(self, name: str) -> dict[str, Any]:
        """What requests to a model may contain, such as ``styles``, ``scales``, ``options`` and ``limits``.

        Raises:
            ServerError: No such model, no worker that answers, or an archive of other software.
        """
        reply = self.send("GET", model_path(name, None), params={"customized": "true"}).json()[0]
        description = reply.get("customizedMetadata")
        if not isinstance(description, dict):
            raise ServerError(f"{name} does not describe itself: its archive was not made by this package")
        return description

    def versions(self, name: str) -> list[Model]:
        """All registered versions of a model, the default one first.

        Raises:
            ServerError: No such model.
        """
        default = self.describe(name).version
        every = map(Model.parse, self.send("GET", model_path(name, "all")).json())
        return sorted(every, key=lambda each: (each.version != default, each.version))

    def every_version(self) -> list[Model]:
        """All versions of all models, as :meth:`versions`."""
        return [each for name in self.models() for each in self.versions(name)]

    def ready_workers(self, name: str, version: str | None = None) -> list[int]:
        """Process ids of the workers that have loaded the model; ``/ping`` reports Healthy even without any."""
        return [worker.pid for worker in self.describe(name, version).ready]

    def register(
        self,
        archive: str,
        *,
        workers: int | None = None,
        batch_size: int | None = None,
        max_batch_delay: int | None = None,
    ) -> ModelVersion:
        """Registers an archive of the model store and waits until its workers are ready.

        The first version of a model becomes its default; a further one is served at ``name/version`` until
        :meth:`set_default`. :func:`perceptual.serving.registration.register` also packages, warms up and copies files
        to the model store.

        Args:
            archive: File name in the model store.
            workers: Number of workers; by default the archive's.
            batch_size: Maximum number of requests in a batch; by default the archive's.
            max_batch_delay: Milliseconds that a batch waits for more requests; by default the archive's.

        Returns:
            The model's name and version, from the archive's manifest.

        Raises:
            AlreadyRegistered: That version is registered.
            WorkersFailed: It fails to load.
            ServerError: No such archive. After any error, and after Ctrl-C, it is not registered.
        """
        # `workers` is not passed as initial_workers, which the archive's own number overrides.
        limits = {"batch_size": batch_size, "max_batch_delay": max_batch_delay}
        parameters = {"url": Path(archive).name, "initial_workers": 1, "synchronous": "true"}
        parameters |= {key: value for key, value in limits.items() if value is not None}
        before = {each.id for each in self.every_version()}
        with all_or_nothing() as undo:
            undo.callback(self.forget, Path(archive).name, before)
            try:
                registered = registered_in(self.send("POST", "/models", params=parameters).json()["status"])
            except AlreadyRegistered:  # by another client, if it was not before
                undo.pop_all()
                raise
            if workers is not None:
                self.scale(registered.name, workers, registered.version)
            self.wait_until_ready(*registered)
        return registered

    def forget(self, archive: str, before: Collection[ModelVersion]) -> None:
        """Unregisters the versions of an archive that are registered now and were not ``before``.

        TorchServe keeps a model that failed to load. It also completes a registration whose client has disconnected, so
        the model may appear a moment later.
        """
        deadline = time.monotonic() + APPEARANCE
        while time.monotonic() < deadline:
            with suppress(ServerError):
                new = [each for each in self.every_version() if each.archive == archive and each.id not in before]
                for each in new:
                    self.unregister(*each.id)
                if new:
                    return
            time.sleep(0.1)

    def scale(
        self,
        name: str,
        workers: int,
        version: str | None = None,
        progress: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Sets the number of workers of a model's version, by default the default version, and waits for them.

        :func:`perceptual.serving.scaling.scale` also checks that there is enough memory.

        Raises:
            WorkersFailed: A worker fails to start; the number of workers is then as before.
            ServerError: No such model.
        """
        before = self.describe(name, version).wanted
        with all_or_nothing() as undo, self.reporting_progress(name, workers, version, progress):
            # Otherwise TorchServe would keep trying to start workers that fail.
            undo.callback(self.restore_workers, name, before, version)
            self.set_workers(name, workers, version)
            self.wait_until_ready(name, version)

    def restore_workers(self, name: str, workers: int, version: str | None) -> None:
        """Sets the number of workers back, if the model is still registered."""
        with suppress(ServerError):
            if self.describe(name, version).wanted != workers:
                self.set_workers(name, workers, version)

    def set_workers(self, name: str, workers: int, version: str | None) -> None:
        """Sets the number of workers by one request to TorchServe; see :meth:`scale`."""
        parameters = {"min_worker": workers, "max_worker": workers, "synchronous": "true"}
        self.send("PUT", model_path(name, version), params=parameters)

    @contextmanager
    def reporting_progress(
        self, name: str, workers: int, version: str | None, progress: Callable[[str], None]
    ) -> Iterator[None]:
        """Reports several times a second how many workers are ready, while TorchServe starts them."""
        done = threading.Event()

        def report() -> None:
            while not done.wait(0.3):
                with suppress(ServerError):
                    progress(f"{len(self.ready_workers(name, version))} of {workers} workers ready")

        reporter = threading.Thread(target=report, daemon=True)
        reporter.start()
        try:
            yield
        finally:
            done.set()
            reporter.join()

    def wait_until_ready(self, name: str, version: str | None = None) -> None:
        """Waits until all workers are ready, which is a moment after TorchServe's reply.

        Raises:
            ServerError: No such model, or they are not ready within :data:`SETTLE` seconds.
        """
        deadline = time.monotonic() + SETTLE
        while len((model := self.describe(name, version)).ready) < model.wanted:
            if time.monotonic() > deadline:
                raise ServerError(f"not all workers of {name} are ready; perceptual status shows more")
            time.sleep(0.05)

    def set_default(self, name: str, version: str) -> None:
        """Makes a version the default, which answers requests that name no version.

        Raises:
            ServerError: No such model or version.
        """
        self.send("PUT", f"{model_path(name, version)}/set-default")

    def unregister(self, name: str, version: str | None = None) -> None:
        """Removes a model with all its versions, or only one of them, and ends its workers.

        Raises:
            ServerError: No such model or version, or it is the default of several.
        """
        # Without a version TorchServe would remove the default alone, or refuse.
        versions = [version] if version else [each.version for each in reversed(self.versions(name))]
        for each in versions:
            self.send("DELETE", model_path(name, each))


def model_path(name: str, version: str | None = None) -> str:
    """The path of a model, or of a version of it, in the management API."""
    return "/models/" + "/".join(quote(each, safe="") for each in (name, version) if each is not None)


def registered_in(status: str) -> ModelVersion:
    """Name and version from TorchServe's reply to a registration. Raises ServerError if the reply has none."""
    if not (found := REGISTERED.search(status)):
        raise ServerError(f"unexpected reply to a registration: {status}")
    return ModelVersion(*found.groups())
