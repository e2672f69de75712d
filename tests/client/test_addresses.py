import os
from dataclasses import replace

import pytest

from perceptual.client.addresses import RunningServer, find_server
from perceptual.errors import ServerError


def test_servers_that_ended_are_not_found(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    server = RunningServer(1234, "http://127.0.0.1:8080", "m", "x", None, "logs")
    server.announce(8080)
    monkeypatch.setattr("perceptual.client.addresses.psutil.pid_exists", lambda pid: True)
    assert find_server() == server
    later = replace(server, logs="later")
    later.announce(9000)
    os.utime(server.announce(8080), (0, 0))
    assert find_server() == later and find_server(8080) == server
    monkeypatch.setattr("perceptual.client.addresses.psutil.pid_exists", lambda pid: False)
    with pytest.raises(ServerError, match="no server is running"):
        find_server()


def test_files_that_tell_of_no_server_are_passed_over(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    server = RunningServer(os.getpid(), "http://127.0.0.1:8080", "m", "x", None, "logs")
    folder = server.announce(8080).parent
    (folder / "1.json").write_text("")
    (folder / "2.json").write_text('{"pid": 1, "of_another_version": true}')
    assert find_server() == server
