"""Restarts TorchServe and failed workers, and refuses requests that would never be answered.

While no worker of a model is ready, TorchServe queues its requests without a time limit, even after it has stopped
restarting workers. A model with zero workers answers 503 immediately. So a model whose workers keep dying is *held
back*: it is scaled to zero workers, the front refuses the requests that wait for it, and it is tried again later.
"""

import logging
import time

import psutil

from ..client.management import LOADING, ManagementClient
from ..client.model import Model
from ..errors import ServerError
from .notices import notify
from .server import Server

INTERVAL = 1.0  # seconds between two checks
PATIENCE = 15.0  # seconds without a ready worker; TorchServe replaces a dead worker in three to seven
SILENCE = 30.0  # seconds without a reply of the management API, which usually takes milliseconds
SHORTEST, LONGEST = 2.0, 300.0  # seconds between two attempts; each pause is twice the one before

logger = logging.getLogger(__name__)


class Backoff:
    """Exponential backoff; after :data:`LONGEST` seconds without an attempt, pauses are short again."""

    def __init__(self) -> None:
        self.tries = 0
        self.due = time.monotonic()

    def next(self) -> float:
        """Seconds until the next attempt."""
        if time.monotonic() > self.due + LONGEST:
            self.tries = 0
        pause = min(LONGEST, SHORTEST * 2.0**self.tries)
        self.tries += pause < LONGEST
        self.due = time.monotonic() + pause
        return pause


class Supervisor:
    """Watches a server that has been started, and logs everything it does.

    It notifies systemd's watchdog while its own loop runs and the front answers, so that systemd restarts a program
    that hangs.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.front = server.front
        server.progress = lambda message: self.live()  # TorchServe may take minutes to start again
        self.held: dict[str, int] = {}  # models held back, and the number of workers each should have
        self.attempts: dict[str, Backoff] = {}
        self.restarts = Backoff()
        self.down_since: dict[str, float] = {}
        self.answered = time.monotonic()

    def run(self) -> None:
        """Watches until the program ends."""
        while True:
            self.live()
            self.check()
            self.rest(INTERVAL)

    def live(self) -> None:
        """Notifies the watchdog if the front responds."""
        if self.front.responds():
            notify("WATCHDOG=1")

    def rest(self, seconds: float) -> None:
        """Sleeps, and keeps notifying the watchdog."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, INTERVAL))
            self.live()

    def check(self) -> None:
        """Checks TorchServe and every model once, and restarts, holds back or brings back as needed."""
        if reason := self.server.ended():
            self.restart(f"TorchServe ended: {reason}")
            return
        try:
            with self.server.management() as management:
                described = management.every_version()
                self.answered = time.monotonic()
                self.forget_all_but({each.id.path for each in described})
                due = [each.id.path for each in described if self.check_model(each, management)]
            if due:  # only one per check, at its end: loading takes long
                self.bring_back(due[0])
                self.answered = time.monotonic()
        except ServerError as error:  # it is busy, or someone has just unregistered a model
            if time.monotonic() - self.answered > SILENCE:
                self.restart(f"TorchServe does not answer: {error}")
        except OSError as error:  # a full disk is no reason to end a server that still answers
            logger.error("%s", error)

    def restart(self, reason: str) -> None:
        """Starts TorchServe again, after a pause."""
        pause = self.restarts.next()
        logger.error("%s; starting it again in %g s", reason, pause)
        self.rest(pause)
        try:
            self.server.restart()
            logger.warning("TorchServe is started again")
        except (ServerError, OSError) as error:  # the next check finds that it is not running
            logger.error("%s", error)
        self.down_since.clear()
        self.answered = time.monotonic()

    def check_model(self, described: Model, management: ManagementClient) -> bool:
        """Holds a model back if its workers keep dying. Returns whether a held model is due to be brought back."""
        model = described.id.path
        if not described.wanted:
            self.down_since.pop(model, None)
            if model in self.held:
                return time.monotonic() >= self.attempts[model].due
            self.refuse(model, 0, management)  # scaled to zero by a user: its waiting requests would never be answered
            return False
        if described.ready:
            self.release(model)  # if it was held back, someone has scaled it up
            self.down_since.pop(model, None)
            return False
        down = time.monotonic() - self.down_since.setdefault(model, time.monotonic())
        # A worker that is still importing torch is alive, and importing may take long.
        if down >= PATIENCE and not any(psutil.pid_exists(worker.pid) for worker in described.workers):
            self.hold(model, described.wanted, management)
        return False

    def hold(self, model: str, workers: int, management: ManagementClient) -> None:
        """Scales a model to zero workers and refuses its requests until it is brought back."""
        self.held[model] = workers
        self.attempts.setdefault(model, Backoff())
        self.server.note_held(self.held)  # first: after a crash the model must not stay without workers
        name, version = split(model)
        management.set_workers(name, 0, version)
        self.down_since.pop(model, None)
        pause = self.attempts[model].next()
        self.refuse(model, pause, management)
        logger.error("the workers of %s keep dying: refusing its requests, trying again in %g s", model, pause)

    def refuse(self, model: str, pause: float, management: ManagementClient) -> None:
        """Makes the front refuse the requests that wait for a model, with ``pause`` seconds as ``Retry-After``."""
        name, version = split(model)
        self.front.refuse(f"/predictions/{model}", pause)
        if management.describe(name).version == version:  # the default, which requests need not name
            self.front.refuse(f"/predictions/{name}", pause)

    def bring_back(self, model: str) -> None:
        """Tries to start a model's workers."""
        name, version = split(model)
        with self.server.management(LOADING) as management:
            try:
                management.scale(name, self.held[model], version, progress=lambda message: self.live())
            except ServerError as error:
                pause = self.attempts[model].next()
                self.refuse(model, pause, management)
                logger.error("%s stays refused: %s; trying again in %g s", model, error, pause)
            else:
                self.release(model)
                logger.warning("%s is back", model)

    def release(self, *models: str) -> None:
        """Stops holding models back; does nothing for models that are not held."""
        kept = {model: workers for model, workers in self.held.items() if model not in models}
        if kept != self.held:
            for model in self.held.keys() - kept:
                self.front.readmit(f"/predictions/{model}", f"/predictions/{split(model)[0]}")
            self.held = kept
            self.server.note_held(kept)

    def forget_all_but(self, registered: set[str]) -> None:
        """Drops the state of models that have been unregistered."""
        self.release(*(self.held.keys() - registered))
        self.down_since = {model: since for model, since in self.down_since.items() if model in registered}


def split(model: str) -> tuple[str, str]:
    """Name and version of ``name/version``."""
    name, version = model.split("/")
    return name, version
