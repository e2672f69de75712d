import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from serving_fixtures import altered, are_free, free_port, wait_for

from perceptual.archives.manifest import Archive, find_archives
from perceptual.client.addresses import find_server
from perceptual.errors import ServerError
from perceptual.serving.processes import group_members
from perceptual.serving.server import Server
from perceptual.serving.snapshots import (
    begin,
    make_newest,
    newest_snapshot,
    plan_restart,
    plan_start,
    read_held,
    snapshot_folder,
    write_held,
)

ONE, TWO, THREE = (Archive(Path(f"{name}.mar"), name, "1.0") for name in ("one", "two", "three"))


def write(folder, name, age, **workers):
    """A snapshot as TorchServe writes it, some seconds old."""
    models = {
        each: {"1.0": {"defaultVersion": True, "marName": f"{each}.mar", "minWorkers": count, "maxWorkers": count}}
        for each, count in workers.items()
    }
    snapshot = json.dumps({"name": name, "modelCount": len(models), "models": models}, indent=2)
    escaped = snapshot.replace(":", "\\:").replace("\n", "\\n")
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(
        f"#Saving snapshot\ninference_address=http\\://127.0.0.1\\:8080\nmodel_snapshot={escaped}\n"
    )
    os.utime(folder / name, (time.time() - age,) * 2)
    return folder / name


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "8080"


def planned(folder, *archives):
    plan = plan_start(folder, archives)
    models = json.loads(plan.snapshot)["models"] if plan.snapshot else None
    return plan.loaded, plan.paused, plan.added, models


def test_without_a_snapshot_everything_is_loaded(folder):
    assert planned(folder, ONE, TWO) == ([ONE, TWO], [], [], None)
    assert planned(None, ONE) == ([ONE], [], [], None)


def test_what_was_registered_last_is_loaded_and_what_is_new(folder):
    write(folder, "1.cfg", 20, one=1, two=1)
    write(folder, "2.cfg", 10, one=2)
    loaded, paused, added, models = planned(folder, ONE, TWO, THREE)
    assert (loaded, paused, added) == ([ONE], [], [THREE])  # two was unregistered
    assert models["one"]["1.0"]["minWorkers"] == 2 and models.keys() == {"one"}


def test_a_model_that_was_held_back_is_tried_at_a_start_and_not_at_a_restart(folder, monkeypatch):
    write(folder, "1.cfg", 10, one=0, two=0)
    write_held(folder, {"one/1.0": 2})
    replaced = replace(ONE, version="2.0")  # by an archive that may work
    loaded, paused, _, models = planned(folder, replaced, TWO)
    assert (loaded, paused, models["one"]["2.0"]["minWorkers"]) == ([replaced, TWO], [TWO], 2)
    monkeypatch.setattr("perceptual.serving.snapshots.find_archives", lambda *arguments: [ONE, TWO])
    assert plan_restart(folder, folder, []).paused == [ONE, TWO]


def test_an_unregistered_archive_stays_out_however_often_one_starts(folder):
    write(folder, "1.cfg", 20, one=1, two=1)
    write(folder, "2.cfg", 10, one=1)
    for _ in range(3):
        begin(folder, ["two.mar"])
        assert [file.name for file in folder.glob("*.cfg")] == ["2.cfg"]
        assert planned(folder, ONE, TWO)[:3] == ([ONE], [], [])


def test_what_is_written_last_is_the_newest_even_after_the_clock_was_set_back(folder):
    before = [write(folder, "2.cfg", 0, one=1)]
    write(folder, "1.cfg", 3300, one=1, two=1)
    make_newest(folder, before)
    assert newest_snapshot(folder)["models"].keys() == {"one", "two"}
    assert planned(folder, ONE, TWO)[0] == [ONE, TWO]


def test_a_snapshot_that_breaks_off_is_passed_over(folder):
    write(folder, "1.cfg", 20, one=1)
    newest = write(folder, "2.cfg", 10, one=1, two=1)
    whole = newest.read_text()
    for broken in (whole[:120], whole[: len(whole) // 2], whole[:-20], ""):
        newest.write_text(broken)
        assert newest_snapshot(folder)["models"].keys() == {"one"}
    begin(folder, [])
    assert [file.name for file in folder.glob("*.cfg")] == ["1.cfg"]
    assert (folder / "2.cfg.unreadable").exists()


@pytest.mark.parametrize(
    "junk", ["", "{", "[1]", "null", '{"one": 1}', '{"one/1.0": "2"}', '{"one/1.0": -1}', "7", "\0"]
)
def test_state_that_cannot_be_read_is_set_aside_once(folder, caplog, junk):
    write(folder, "1.cfg", 10, one=1)
    for name in ("held.json", "left_out.json"):
        (folder / name).write_text(junk)
    assert planned(folder, ONE)[:3] == ([ONE], [], [])
    assert read_held(folder) == {}
    begin(folder, [])
    assert {file.name for file in folder.glob("*.unreadable")} == {"held.json.unreadable", "left_out.json.unreadable"}
    assert caplog.text.count("continuing without it") == 2
    begin(folder, [])
    assert caplog.text.count("continuing without it") == 2
    write_held(folder, {"one/1.0": 1})
    assert read_held(folder) == {"one/1.0": 1}
    assert {(folder / name).stat().st_mode & 0o777 for name in ("held.json", "left_out.json")} == {0o600}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("minWorkers", "1"),
        ("minWorkers", -1),
        ("minWorkers", 5),
        ("marName", 7),
        ("defaultVersion", None),
        ("batchSize", {}),
    ],
)
def test_a_snapshot_with_odd_fields_is_passed_over(folder, key, value):
    write(folder, "1.cfg", 20, one=1)
    newest = write(folder, "2.cfg", 10, one=2)
    entry = {"defaultVersion": True, "marName": "one.mar", "minWorkers": 1, "maxWorkers": 2} | {key: value}
    for models in ({"one": {"1.0": entry}}, {"one": entry}, {"one": []}, [], None):
        snapshot = json.dumps({"name": "2.cfg", "modelCount": 1, "models": models})
        newest.write_text("model_snapshot=" + snapshot.replace(":", "\\:"))
        assert newest_snapshot(folder)["models"]["one"]["1.0"]["minWorkers"] == 1


def test_archives_that_are_gone_or_hold_another_version_now(folder):
    write(folder, "1.cfg", 10, one=1, two=0)
    renewed = replace(TWO, version="2.0")
    loaded, paused, added, models = planned(folder, renewed)
    assert (loaded, paused, added) == ([renewed], [renewed], [])
    assert models == {"two": {"2.0": {"defaultVersion": True, "marName": "two.mar", "minWorkers": 0, "maxWorkers": 0}}}


def test_nothing_is_kept_without_a_port_to_come_back_to_or_where_nothing_can_be_written(tmp_path, monkeypatch):
    assert snapshot_folder(tmp_path, 8080) == tmp_path / ".snapshots" / "8080"
    assert snapshot_folder(tmp_path, 0) is None
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert snapshot_folder(tmp_path, 8080) is None


@pytest.mark.serves
def test_a_killed_server_comes_back_with_what_was_registered(model_store, tmp_path, monkeypatch, photo, run):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    store, port = tmp_path / "store", free_port()
    shutil.copytree(model_store, store)
    command = [sys.executable, "-c", "from perceptual.commands import main; main()"]
    command += ["serve", "--model-store", store, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            process.stdout.readline()
            server = find_server(port)
            with server.management() as management:
                for version in ("2", "3"):
                    altered(store / "tiny.mar", store / f"tiny-{version}.mar", modelVersion=version)
                management.register("tiny-2.mar", batch_size=3, workers=2)
                management.register("tiny-3.mar")
                management.scale("tiny", 0, "3")
                management.set_default("tiny", "2")
                management.unregister("tiny", "1.2")
            # Everything at once, and the last snapshot in the middle of being written.
            members = group_members(server.pid)
            for member in [process.pid, *members]:
                with suppress(ProcessLookupError):  # some end with the first
                    os.kill(member, signal.SIGKILL)
            process.wait(timeout=10)
        finally:
            process.kill()
    wait_for(lambda: not any(running(member) for member in members))
    wait_for(lambda: are_free(port))  # a zombie's threads may hold its sockets a moment longer
    (snapshot_folder(store, port) / "20990101000000000-snapshot.cfg").write_text("#Saving snapshot\nmodel_snaps")
    altered(store / "tiny.mar", store / "new.mar", modelName="new")

    with Server(store, port=port) as server, server.address.management() as management:
        found = {name: [summary(each) for each in management.versions(name)] for name in management.models()}
        assert found == {"tiny": [("2", 2, 2, 3), ("3", 0, 0, 1)], "new": [("1.2", 1, 1, 1)]}
        with server.address.inference() as client:
            assert client.stylize(photo, "tiny") and client.stylize(photo, "new")
        # Its ports are in a row, where `status` looks for those of a server that it knows by --url.
        url = ("--url", server.address.management_url, "--key-file", server.address.key_file)
        assert run("status", *url)[1].startswith("healthy (/ping: Healthy)")
    files = [file.name for file in snapshot_folder(store, port).iterdir()]
    assert "20990101000000000-snapshot.cfg" not in files


def summary(version):
    """A version with its workers, wanted and ready, and its batch size."""
    return version.version, version.wanted, len(version.ready), version.batch_size


def running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@pytest.mark.serves
def test_an_added_archive_that_fails_to_load_is_tried_again(model_store, tmp_path):
    store, port = tmp_path / "store", free_port()
    shutil.copytree(model_store, store)
    begin(snapshot_folder(store, port), ["tiny.mar"])
    write(snapshot_folder(store, port), "1.cfg", 10)
    altered(store / "tiny.mar", store / "broken.mar", {"tiny.safetensors": b"junk"}, modelName="broken")
    server = Server(store, port=port)
    with pytest.raises(ServerError, match="broken fails to load: .*WeightsError"):
        server.start()
    shutil.rmtree(server.folder)
    again = plan_start(snapshot_folder(store, port), find_archives(store, None))
    assert [archive.name for archive in [*again.loaded, *again.added]] == ["broken"]
