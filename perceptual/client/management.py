"""The client of the management API: registers, scales and unregisters models."""

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from requests.auth import AuthBase

from ..errors import ServerError
from .connection import Client

LOADING = 660.0  # seconds; more than the archives allow a worker to load (startupTimeout)
SETTLE = 10.0  # seconds between TorchServe's word that workers are loaded and their being ready; a moment in fact

# TorchServe's words, the only place where it tells what it took from the manifest.
REGISTERED = re.compile(r'Model "(.+?)" Version: (\S+) registered')
FAILED = re.compile(r"Failed to start workers for model (\S+) version: ([^\s;]+)")


class Registered(NamedTuple):
    """A model's name and version, as its archive's manifest tells them."""

    name: str
    version: str


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

    def describe(self, name: str, version: str | None = None) -> dict[str, Any]:
        """TorchServe's description of a model: ``modelVersion``, ``batchSize``, ``workers``, ….

        Raises:
            ServerError: No such model or version.
        """
        return self.send("GET", model_path(name, version)).json()[0]

    def versions(self, name: str) -> list[dict[str, Any]]:
        """The descriptions of all versions of a model that are registered, the default one first.

        Raises:
            ServerError: No such model.
        """
        default = self.describe(name)["modelVersion"]
        every = self.send("GET", model_path(name, "all")).json()
        return sorted(every, key=lambda each: (each["modelVersion"] != default, each["modelVersion"]))

    def every_version(self) -> list[dict[str, Any]]:
        """The descriptions of all versions of all models, as :meth:`versions`."""
        return [each for name in self.models() for each in self.versions(name)]

    def ready_workers(self, name: str, version: str | None = None) -> list[int]:
        """Process ids of the workers that have loaded the model; ``/ping`` says Healthy even without any."""
        return [each["pid"] for each in ready(self.describe(name, version))]

    def register(
        self,
        archive: str,
        *,
        workers: int | None = None,
        batch_size: int | None = None,
        max_batch_delay: int | None = None,
    ) -> Registered:
        """Registers an archive of the model store and waits until its workers are ready.

        The first version of a model becomes its default; a further one is served at ``name/version`` until
        :meth:`set_default`. :func:`perceptual.serving.registration.register` also packages, warms up and takes files
        from elsewhere.

        Args:
            archive: File name in the model store.
            workers: How many; by default what the archive says.
            batch_size: Most requests in one batch; by default what the archive says.
            max_batch_delay: Milliseconds a batch waits to be full; by default what the archive says.

        Returns:
            The model's name and version, as the archive's manifest tells them.

        Raises:
            ServerError: No such archive, registered already, or it fails to load; then it is not kept.
        """
        # Not the parameter initial_workers: the archive's own number goes before it.
        wishes = {"batch_size": batch_size, "max_batch_delay": max_batch_delay}
        parameters = {"url": Path(archive).name, "initial_workers": 1, "synchronous": "true"}
        parameters |= {key: value for key, value in wishes.items() if value is not None}
        try:
            registered = registered_in(self.send("POST", "/models", params=parameters).json()["status"])
        except ServerError as error:
            if failed := FAILED.search(str(error)):  # TorchServe keeps a model that failed to load
                with suppress(ServerError):
                    self.unregister(*failed.groups())
            raise
        try:
            if workers is not None:
                self.scale(registered.name, workers, registered.version)
            self.wait_until_ready(*registered)
        except ServerError:
            with suppress(ServerError):
                self.unregister(*registered)
            raise
        return registered

    def scale(
        self,
        name: str,
        workers: int,
        version: str | None = None,
        progress: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Sets the number of workers of a model's version, by default of the default one, and waits for them.

        :func:`perceptual.serving.scaling.scale` also sees to it that there is memory for them.

        Raises:
            ServerError: No such model, or a worker fails to start; then there are as many as before.
        """
        before = self.describe(name, version)["minWorkers"]
        try:
            with self.telling_progress(name, workers, version, progress):
                self.set_workers(name, workers, version)
                self.wait_until_ready(name, version)
        except ServerError:  # TorchServe would go on starting those that fail
            with suppress(ServerError):
                self.set_workers(name, before, version)
            raise

    def set_workers(self, name: str, workers: int, version: str | None) -> None:
        """Sets the number of workers, as TorchServe does it; see :meth:`scale`."""
        parameters = {"min_worker": workers, "max_worker": workers, "synchronous": "true"}
        self.send("PUT", model_path(name, version), params=parameters)

    @contextmanager
    def telling_progress(
        self, name: str, workers: int, version: str | None, progress: Callable[[str], None]
    ) -> Iterator[None]:
        """Tells several times a second how many workers are ready, while TorchServe is at it."""
        done = threading.Event()

        def tell() -> None:
            while not done.wait(0.3):
                with suppress(ServerError):
                    progress(f"{len(self.ready_workers(name, version))} of {workers} workers ready")

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            done.set()
            teller.join()

    def wait_until_ready(self, name: str, version: str | None = None) -> None:
        """Returns when all workers are ready: TorchServe answers a moment before they count as that.

        Raises:
            ServerError: No such model, or they are not ready within :data:`SETTLE` seconds.
        """
        deadline = time.monotonic() + SETTLE
        while len(self.ready_workers(name, version)) < self.describe(name, version)["minWorkers"]:
            if time.monotonic() > deadline:
                raise ServerError(f"not all workers of {name} are ready; perceptual status tells more")
            time.sleep(0.05)

    def set_default(self, name: str, version: str) -> None:
        """Makes a version the one that answers where a request names none.

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
        doomed = [version] if version else [each["modelVersion"] for each in reversed(self.versions(name))]
        for each in doomed:
            self.send("DELETE", model_path(name, each))


def ready(described: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The workers of a model's description that have loaded it."""
    return [worker for worker in described["workers"] if worker["status"] == "READY"]


def model_path(name: str, version: str | None = None) -> str:
    """Where the management API has a model, or a version of it."""
    return "/models/" + "/".join(quote(each, safe="") for each in (name, version) if each is not None)


def registered_in(status: str) -> Registered:
    """Name and version from TorchServe's reply to a registration. Raises ServerError if they are not there."""
    if not (found := REGISTERED.search(status)):
        raise ServerError(f"unexpected reply to a registration: {status}")
    return Registered(*found.groups())
