import os
import subprocess
from dataclasses import replace

import pytest

from perceptual.client.addresses import RunningServer, find_server
from perceptual.errors import ServerError


def test_the_server_started_last_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    server = RunningServer(os.getpid(), "http://127.0.0.1:8080", "m", "x", None, "logs", started=1e9)
    server.announce(8080)
    assert find_server() == server
    later = replace(server, logs="later", started=1e9 + 1)
    later.announce(9000)
    server.announce(8080)  # again, as TorchServe has been started again
    assert find_server() == later and find_server(8080) == server


def test_servers_that_ended_are_not_found(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    server = RunningServer(ended.pid, "http://127.0.0.1:8080", "m", "x", None, "logs")
    server.announce(8080)
    with pytest.raises(ServerError, match="no server is running"):
        find_server()
    # Its number may have been given to another process since, here to this one.
    os.utime(replace(server, pid=os.getpid()).announce(8080), (0, 0))
    with pytest.raises(ServerError, match="no server is running on port 8080"):
        find_server(8080)


def test_files_that_tell_of_no_server_are_passed_over(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    server = RunningServer(os.getpid(), "http://127.0.0.1:8080", "m", "x", None, "logs")
    folder = server.announce(8080).parent
    (folder / "1.json").write_text("")
    (folder / "2.json").write_text('{"pid": 1, "of_another_version": true}')
    assert find_server() == server
