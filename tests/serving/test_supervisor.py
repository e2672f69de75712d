import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace

import psutil
import pytest
import requests
from serving_fixtures import altered, wait_for

from perceptual.client.addresses import find_server
from perceptual.client.model import Model, Worker
from perceptual.errors import ServerError
from perceptual.serving import supervisor
from perceptual.serving.processes import group_members
from perceptual.serving.server import Server
from perceptual.serving.snapshots import read_held
from perceptual.serving.status import read_status
from perceptual.serving.supervisor import Backoff, Supervisor

FICKLE = """
import pathlib
class Fickle:
    def initialize(self, context):
        assert not pathlib.Path({flag!r}).exists()
    def handle(self, data, context):
        return [b"answer"] * len(data)
"""


@pytest.fixture
def flag(tmp_path):
    """While this file exists, the model ``fickle`` fails to load."""
    return tmp_path / "broken"


@pytest.fixture
def supervised(model_store, tmp_path, flag, monkeypatch):
    """A server with the models ``tiny`` and ``fickle``, and a supervisor that looks after it."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(supervisor, "PATIENCE", 2.0)
    monkeypatch.setattr(supervisor, "INTERVAL", 0.3)
    monkeypatch.setattr(supervisor, "SHORTEST", 0.5)
    store = tmp_path / "store"
    shutil.copytree(model_store, store)
    handler = FICKLE.format(flag=str(flag)).encode()
    altered(store / "tiny.mar", store / "fickle.mar", {"style_transfer.py": handler}, modelName="fickle")
    with Server(store, port=0) as server:
        watcher = Supervisor(server)
        end = threading.Event()

        def run():
            while not end.wait(supervisor.INTERVAL):
                watcher.check()

        thread = threading.Thread(target=run)
        thread.start()
        yield server
        end.set()
        thread.join()


def test_what_torchserve_gives_up_on_comes_back(supervised, flag, photo, caplog, monkeypatch):
    server = supervised
    with server.address.inference(timeout=60) as client, server.address.management() as management:
        # The workers of one model die and die: its requests are refused, those of the other are answered.
        flag.touch()
        (worker,) = management.ready_workers("fickle")
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: not management.ready_workers("fickle"))
        waiting = client.request("POST", "/predictions/fickle", data=photo)  # in the queue by now, without limit
        assert waiting.status_code == 503 and int(waiting.headers["retry-after"]) >= 5
        assert "keep dying" in waiting.json()["message"]
        assert status_of(client, "fickle", photo) == 503
        assert client.stylize(photo, "tiny")
        assert read_held(server.snapshots) == {"fickle/1.2": 1}
        assert wait_for_answer(lambda: read_status(server.address)).unhealthy == ["fickle 1.2"]
        wait_for(lambda: "fickle/1.2 stays refused" in caplog.text, seconds=30)

        # TorchServe itself dies: everything is there again, for the same client with its token of before.
        management.scale("tiny", 2)
        for process in psutil.Process(server.address.pid).children():
            process.kill()
        wait_for(lambda: status_of(client, "tiny", photo) == 503)
        wait_for(lambda: "TorchServe is started again" in caplog.text)
        wait_for(lambda: status_of(client, "tiny", photo) == 200)
        assert find_server() == server.address
        assert management.describe("tiny").wanted == 2
        # Killed in the middle of an attempt, it comes back with a worker to be, which is then held back again.
        wait_for(lambda: management.describe("fickle").wanted == 0)

        # The cause is gone.
        flag.unlink()
        wait_for(lambda: status_of(client, "fickle", photo) == 200)
        wait_for(lambda: "fickle/1.2 is back" in caplog.text)  # TorchServe replies later than it serves
        assert read_held(server.snapshots) == {}


def wait_for_answer(ask):
    """What the server answers: while a worker starts, a thread of TorchServe's that answers others too waits for it."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return ask()
        except ServerError:
            assert time.monotonic() < deadline, "no answer within 60 s"


def status_of(client, model, photo):
    """The status of a request to a model, which tells when to try again if it is 503; None if there is none in time."""
    try:
        reply = client.session.post(f"{client.base}/predictions/{model}", data=photo, timeout=3)
    except requests.ReadTimeout:
        return None
    assert ("retry-after" in reply.headers) == (reply.status_code == 503)
    return reply.status_code


@pytest.mark.serves
def test_killing_the_program_ends_torchserve(model_store, tmp_path):
    program = f"""
import time
from perceptual.serving.server import Server
server = Server({str(model_store)!r}, ["tiny"], port=0).start()
print(server.address.pid, server.folder, flush=True)
time.sleep(600)
"""
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        group, folder = str(process.stdout and process.stdout.readline()).split()
        assert len(group_members(int(group))) >= 3
        process.kill()
    wait_for(lambda: not group_members(int(group)), seconds=20)
    shutil.rmtree(folder)


def test_a_torchserve_that_does_not_answer_is_started_again(monkeypatch, caplog):
    class Silent:
        def __getattr__(self, name):  # stands for the server, its process, its address
            return self

        def __call__(self, *arguments, **options):
            return None

        def ended(self):
            return None

        def management(self):
            raise ServerError("no answer within 5 s")

        def restart(self):
            restarts.append(clock[0])

    clock, restarts = [1000.0], []
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Supervisor, "rest", lambda self, seconds: None)
    watcher = Supervisor(Silent())
    for clock[0] in (1001.0, 1029.0, 1031.0, 1032.0, 1062.0):
        watcher.check()
    assert restarts == [1031.0, 1062.0] and "TorchServe does not answer: no answer within 5 s" in caplog.text


def test_pauses_grow_and_start_anew_after_a_quiet_time(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now)
    backoff = Backoff()
    assert [backoff.next() for _ in range(9)] == [2, 4, 8, 16, 32, 64, 128, 256, 300]
    now = backoff.due + supervisor.LONGEST + 1
    assert backoff.next() == 2


def test_pauses_stay_the_longest_however_often_it_fails():
    backoff = Backoff()
    assert [backoff.next() for _ in range(3000)][-1] == supervisor.LONGEST


class Described:
    """Stands for a server with one model, ``m/1``, whose management API tells what it is given."""

    front = property(lambda self: self)

    def __init__(self):
        self.workers, self.wanted, self.failure, self.scaled, self.refused = [], 1, None, [], []
        self.alive = True

    def ended(self):
        return None

    def note_held(self, held):
        pass

    def responds(self):
        return self.alive

    def management(self, timeout=5.0):
        return nullcontext(self)

    def every_version(self):
        return [Model("m", "1", self.wanted, tuple(self.workers))]

    def describe(self, name):
        return Model("m", "1")

    def set_workers(self, name, workers, version, progress=None):
        self.scaled.append(workers)
        if self.failure:
            raise self.failure

    scale = set_workers

    def refuse(self, path, seconds):
        self.refused.append((path, seconds))

    def readmit(self, *paths):
        self.refused = [each for each in self.refused if each[0] not in paths]


@pytest.fixture
def described(monkeypatch):
    """A server as :class:`Described`, with its supervisor and a clock of its own."""
    clock = [1000.0]
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: clock[0])
    server = Described()
    return server, Supervisor(server), clock


DEAD = [Worker(-1, ready=False)]


def test_a_model_that_was_scaled_to_none_and_back_has_its_time_to_load(described):
    server, watcher, clock = described
    for clock[0], server.wanted in ((1000.0, 1), (1005.0, 0), (1100.0, 1), (1114.0, 1)):
        server.workers = DEAD if server.wanted else []
        watcher.check()
    assert server.scaled == []
    clock[0] = 1116.0
    watcher.check()
    assert server.scaled == [0]


def test_a_model_is_brought_back_though_holding_it_back_went_wrong(described):
    server, watcher, clock = described
    server.workers, server.failure = DEAD, ServerError("no answer within 5 s")
    for clock[0] in (1000.0, 1016.0):
        watcher.check()
    assert server.scaled == [0] and watcher.held == {"m/1": 1}
    server.wanted, server.failure = 0, None  # TorchServe has done it all the same
    clock[0] = 1017.0
    watcher.check()
    assert server.scaled == [0, 1] and watcher.held == {}


def test_a_held_model_that_someone_scales_up_in_vain_is_still_held(described):
    server, watcher, clock = described
    server.workers = DEAD
    for clock[0] in (1000.0, 1016.0):
        watcher.check()
    assert watcher.held == {"m/1": 1} and server.refused == [("/predictions/m/1", 2), ("/predictions/m", 2)]
    for clock[0], server.wanted in ((1017.0, 2), (1017.5, 0)):  # its workers die again, and the client takes it back
        watcher.check()
    assert watcher.held == {"m/1": 1}
    server.wanted, server.workers = 2, [Worker(-1, ready=True)]
    watcher.check()
    assert watcher.held == {} and server.refused == []


def test_what_waits_for_a_model_that_is_scaled_to_none_is_refused(described):
    server, watcher, _ = described
    server.wanted = 0
    watcher.check()
    assert server.scaled == [] and server.refused == [("/predictions/m/1", 0), ("/predictions/m", 0)]


def test_a_full_disk_at_a_restart_does_not_end_the_supervisor(described, monkeypatch, caplog):
    server, watcher, _ = described
    monkeypatch.setattr(watcher, "rest", lambda seconds: None)
    server.ended = lambda: "killed"

    def restart():
        raise OSError(errno.ENOSPC, "No space left on device")

    server.restart = restart
    watcher.check()
    assert "TorchServe ended: killed" in caplog.text and "No space left" in caplog.text


def test_an_attempt_that_takes_long_is_no_silence_of_torchserve(described, monkeypatch, caplog):
    server, watcher, clock = described
    watcher.held, watcher.attempts, server.wanted = {"m/1": 1}, {"m/1": Backoff()}, 0
    monkeypatch.setattr(watcher, "rest", lambda seconds: None)

    def slow(name, workers, version, progress):
        clock[0] += 60.0

    server.scale = slow
    watcher.check()
    restarts = []
    server.restart = lambda: restarts.append(clock[0])
    server.every_version = lambda: (_ for _ in ()).throw(ServerError("busy"))
    watcher.check()
    assert "m/1 is back" in caplog.text and not restarts
    clock[0] += supervisor.SILENCE + 1
    watcher.check()
    assert len(restarts) == 1 and "does not answer: busy" in caplog.text


def test_a_full_disk_does_not_end_the_supervisor(described, caplog):
    server, watcher, clock = described

    def full(held):
        raise OSError(errno.ENOSPC, "No space left on device")

    server.note_held = full
    server.workers = DEAD
    for clock[0] in (1000.0, 1016.0):
        watcher.check()
    assert "No space left on device" in caplog.text


@pytest.mark.parametrize(
    ("default", "refused"), [("1", {"/predictions/m/1", "/predictions/m"}), ("0", {"/predictions/m/1"})]
)
def test_only_the_dying_version_s_requests_are_refused(described, default, refused):
    server, watcher, clock = described
    paths = set()
    server.workers, server.refuse = DEAD, lambda path, seconds: paths.add(path)
    server.describe = lambda name: Model("m", default)
    for clock[0] in (1000.0, 1016.0):
        watcher.check()
    assert paths == refused


def test_a_worker_that_is_still_loading_is_left_alone(described):
    server, watcher, clock = described
    server.workers = [Worker(os.getpid(), ready=False)]
    for clock[0] in (1000.0, 1100.0):
        watcher.check()
    assert server.scaled == []


@pytest.mark.parametrize("address", ["{folder}/notify.sock", "@perceptual-{folder}"])
def test_systemd_gets_a_sign_of_life_while_the_front_answers(monkeypatch, tmp_path, address):
    address = address.format(folder=tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address.replace("@", "\0"))
        systemd.settimeout(0.1)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        server = Described()
        watcher = Supervisor(server)
        watcher.live()
        assert systemd.recv(100) == b"WATCHDOG=1"
        server.progress("starting TorchServe")  # which may take minutes
        assert systemd.recv(100) == b"WATCHDOG=1"
        server.alive = False
        watcher.live()
        with pytest.raises(TimeoutError):
            systemd.recv(100)


@pytest.mark.parametrize("flags", [(), ("--supervise", "--no-tokens", "--no-page", "--page-status")])
def test_serve_does_what_its_options_say(run, monkeypatch, flags):
    did, options = [], {}

    class Started:
        models = None

        def __init__(self, *arguments, **wishes):
            options.update(wishes)

        def start(self):
            return self

        __enter__ = start

        def __exit__(self, *exception):
            pass

        def wait(self):
            did.append("waits")

    supervising = SimpleNamespace(run=lambda: did.append("supervises"))
    monkeypatch.setattr("perceptual.serving.server.Server", Started)
    monkeypatch.setattr("perceptual.serving.supervisor.Supervisor", lambda server: supervising)
    monkeypatch.setattr("perceptual.commands.serve.how_to_use", lambda server: "")
    assert run("serve", *flags)[0] == 0
    assert did == ["supervises" if flags else "waits"]
    assert bool(options["on_skip"]) == (not options["tokens"]) == bool(flags)
    assert options["page_status"] == (not options["page"]) == bool(flags)
