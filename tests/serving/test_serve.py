"""The command ``perceptual serve`` itself, as an operator and the system treat it."""

import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from PIL import Image
from serving_fixtures import Http, wait_for

from perceptual.archives.build import package
from perceptual.archives.manifest import find_archives
from perceptual.commands.serve import newer_archives

pytestmark = pytest.mark.serves

NAMES = ("inference", "logs")  # of the lines that say where it answers and what it writes
REQUESTS = 8
SPARE_FILES = 6


class Serve:
    """A process of ``perceptual serve``: where it answers and what it says."""

    def __init__(self, process, errors):
        self.process = process
        self.errors = errors
        said = ""
        while not (found := [re.search(f"^{name} +(.+)\n", said, re.MULTILINE) for name in NAMES])[-1]:
            line = process.stdout.readline()
            assert line, errors.read_text()
            said += line
        self.url, self.logs = (each[1] for each in found)

    def count(self, event):
        """How many requests have come to an event, ``begin`` or ``end``, by the log of requests."""
        log = Path(self.logs) / "requests.log"
        lines = log.read_text().splitlines() if log.exists() else []  # it begins with the first request
        return [json.loads(line)["event"] for line in lines].count(event)


@pytest.fixture(scope="module")
def serve(model_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    command = [Path(sys.executable).parent / "perceptual", "serve", "tiny", "--model-store", model_store]
    environment = os.environ | {"XDG_RUNTIME_DIR": str(folder)}
    with (
        (folder / "errors").open("w") as errors,
        subprocess.Popen(
            [*command, "--port", "0", "--no-tokens", "--drain", "90"],  # on a busy machine, 25 s may be too few
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        yield Serve(process, folder / "errors")
        process.terminate()


def test_a_newer_version_beside_the_archive_that_is_named_is_told(weights, tmp_path):
    for version, file in (("1.2", "tiny"), ("1.9", "tiny-1.9"), ("1.10", "tiny-1.10")):
        package(weights, tmp_path / "built", version=version)
        (tmp_path / "built/tiny.mar").rename(tmp_path / f"{file}.mar")
    (tmp_path / "tiny-1.11.mar").write_text("junk")
    package(shutil.copy(weights, tmp_path / "tiny2.safetensors"), tmp_path, version="3.0")
    assert [*newer_archives(serving(tmp_path, "tiny-1.10", "tiny"))] == []
    assert [*newer_archives(serving(tmp_path, "tiny"))] == [
        "tiny-1.10.mar has tiny 1.10, which is newer; to serve it: perceptual serve tiny-1.10, or perceptual serve "
        "without names for what was served last"
    ]


def test_a_newer_version_is_found_in_a_file_of_any_name_and_told_only_if_archives_are_named(weights, tmp_path):
    for version, file in (("1.2", "tiny"), ("1.3", "new")):
        package(weights, tmp_path / "built", version=version)
        (tmp_path / "built/tiny.mar").rename(tmp_path / f"{file}.mar")
    assert len([*newer_archives(serving(tmp_path, "tiny"))]) == 1
    for copy in ("backup", "tiny-backup", "zero"):
        shutil.copy(tmp_path / "new.mar", tmp_path / f"{copy}.mar")
        assert [*newer_archives(serving(tmp_path, "new"))] == []  # the copy has the same version
    restored = SimpleNamespace(model_store=tmp_path, models=None, archives=find_archives(tmp_path, ["tiny"]))
    assert [*newer_archives(restored)] == []  # 1.3 was unregistered


def serving(model_store, *names):
    return SimpleNamespace(model_store=model_store, models=names, archives=find_archives(model_store, names))


def test_a_lack_of_open_files_passes_and_is_said_once(serve, photo):
    client = Http(serve.url)
    assert client.post("/predictions/tiny", data=photo).status_code == 200
    client.close()
    pid, limit = serve.process.pid, resource.RLIMIT_NOFILE
    before = resource.prlimit(pid, limit)
    resource.prlimit(pid, limit, (psutil.Process(pid).num_fds() + SPARE_FILES, before[1]))
    try:
        port = int(serve.url.rpartition(":")[2])
        idle = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(10 * SPARE_FILES)]
        wait_for(lambda: "Too many open files" in serve.errors.read_text(), seconds=20)
        worked = sum(psutil.Process(pid).cpu_times()[:2])
        with pytest.raises(TimeoutError):  # the last of them is not even taken
            idle[-1].settimeout(3)
            idle[-1].recv(1)
        assert sum(psutil.Process(pid).cpu_times()[:2]) - worked < 1
        for each in idle:
            each.close()
        assert Http(serve.url, timeout=30).post("/predictions/tiny", data=photo).status_code == 200
    finally:
        resource.prlimit(pid, limit, before)
    assert serve.errors.read_text().count("Too many open files") <= 2


def test_sigterm_under_load_answers_all_that_was_taken(serve):
    buffer = io.BytesIO()
    Image.effect_noise((600, 400), 80).convert("RGB").save(buffer, "JPEG")
    before = serve.count("begin")
    with ThreadPoolExecutor(REQUESTS) as pool:
        ask = partial(Http(serve.url, timeout=120).post, "/predictions/tiny", data=buffer.getvalue())
        asked = [pool.submit(ask) for _ in range(REQUESTS)]
        wait_for(lambda: serve.count("begin") == before + REQUESTS, seconds=30)
        assert serve.count("end") < before + REQUESTS - 1
        serve.process.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        assert [each.result().status_code for each in asked] == [200] * REQUESTS, time.monotonic() - begin
    assert serve.process.wait(timeout=60) == 128 + signal.SIGTERM
