"""Bulk jobs on a Ray of this machine.

Those of make test share one cluster, and are as few as show everything once: each job takes ten seconds to start.
"""

import io
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from functools import partial

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from serving_fixtures import wait_for

from perceptual.bulk.converter import Converter
from perceptual.bulk.job import Job, read_files
from perceptual.bulk.places import Place
from perceptual.commands import bulk as command
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.styles import read_weights, save_style
from perceptual.inference.weights import save_network
from perceptual.options import StyleOptions

BULK = [sys.executable, "-c", "import sys; from perceptual.commands import main; sys.exit(main())", "bulk"]
NODE = {"num_cpus": 2, "memory": 5 << 30, "object_store_memory": 100 << 20}  # room for two actors
COLORS = 64
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"), pytest.mark.slow]

PHOTOS = int(os.environ.get("PERCEPTUAL_BULK_PHOTOS", 2000))  # of the full forms
TINY = int(os.environ.get("PERCEPTUAL_BULK_TINY", 20_000))


@pytest.fixture(autouse=True)
def silence(monkeypatch):
    """Lines on how far a job is do not come, however slow the machine is."""
    monkeypatch.setattr(command, "INTERVAL", float("inf"))


@pytest.fixture(scope="module")
def ray_cluster():
    """A cluster on this machine, of one node."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        cluster = Cluster()
        cluster.add_node(include_dashboard=False, **NODE)
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def styles(tmp_path_factory):
    """The options of three styles mixed, of which one was learned later."""
    torch.manual_seed(0)
    network = StyleNetwork(styles=2, init_features=4, num_residuals=1)
    torch.nn.init.normal_(network.styles)
    trunk = tmp_path_factory.mktemp("trunk") / "trunk.safetensors"
    learned = tmp_path_factory.mktemp("learned") / "mine.safetensors"
    save_network(trunk, network, {"styles": [{"name": "dots"}, {"name": "stripes"}]})
    save_style(learned, -network.styles[0].detach().numpy(), read_weights(trunk).trunk, {"name": "mine"})
    return ("--model", trunk, "--learned", learned, "--style", "dots:0.5,stripes:0.3,mine:0.2")


def photos(folder, count, size=(40, 30)):
    """Photos that all differ, in folders of a hundred."""
    for number in range(count):
        file = folder / f"{number // 100}" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        color = tuple(number // COLORS**place % COLORS * 4 for place in range(3))
        Image.new("RGB", size, color).save(file)
    return folder


def rows(output):
    """The report, by result; each is there once."""
    table = pq.read_table(output / "bulk.parquet").to_pylist()
    by_result = {row["result"]: row for row in table}
    assert len(by_result) == len(table)
    return by_result


def count(output, *statuses):
    """How many photos a report tells of, with these statuses alone."""
    told = rows(output)
    assert {row["status"] for row in told.values()} <= {*statuses}
    return len(told)


def pictures(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("[!.]*.jpg")}


def check_whole(output, size=(40, 30)):
    """Every picture can be decoded to its last row."""
    for content in pictures(output).values():
        assert Image.open(io.BytesIO(content)).convert("RGB").size == size


def changed(folder):
    """When each picture was written."""
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*.jpg")}


def started(*arguments):
    """A job in a process of its own."""
    return subprocess.Popen([*BULK, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def when(output, least, act):
    """Does something in a thread, for the length of a block, as soon as there are so many pictures."""

    def wait():
        wait_for(lambda: len(pictures(output)) >= least, seconds=3000)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


def kill_9(job, output, least):
    """Kills a job, but none of its actors, when there are so many pictures; returns when nothing writes any more."""
    try:
        wait_for(lambda: job.poll() is not None or len(pictures(output)) >= least, seconds=250)
        assert job.poll() is None, job.communicate()
        actors = [each for each in psutil.process_iter() if converts(each)]
        assert actors
    finally:
        job.kill()
        job.communicate()
    psutil.wait_procs(actors, timeout=60)
    assert not [actor for actor in actors if actor.is_running()]


def converts(process):
    """Whether a process is an actor of ours."""
    try:
        return "MapWorker" in " ".join([process.name(), *process.cmdline()])
    except psutil.Error:
        return False


@pytest.mark.timeout(900)  # an actor's first start has taken minutes, where nothing was in memory yet
def test_the_same_pictures_as_stylize_and_a_row_for_each_photo(run, ray_cluster, styles, photo, tmp_path):
    folder, output = photos(tmp_path / "in", 5), tmp_path / "out"
    (folder / "0" / "1.png").write_bytes(photo)
    (folder / "bad.jpg").write_bytes(b"no image")
    (folder / "notes.txt").touch()
    options = (*styles, "--strength", "0.8", "--quality", "80", "--engine", "eager")
    bulk = ("bulk", folder, output, *options, "--address", ray_cluster.address, "--actors", 1)
    assert run("stylize", folder, *options, "-o", tmp_path / "plain")[0] == 1
    status, out, err = run(*bulk)
    assert out == f"6 of 7 photos stylized, in {output}; ignored 1 other file: notes.txt\n"
    assert status == 1 and err.startswith(f"{folder / 'bad.jpg'}: ") and err.count("\n") == 1
    assert pictures(output) == pictures(tmp_path / "plain") and len(pictures(output)) == 6
    told = rows(output)
    assert Counter(row["status"] for row in told.values()) == {"made": 6, "failed": 1}
    assert told["0/1.png.jpg"]["size"] == len(pictures(output)["0/1.png.jpg"])
    assert told["bad.jpg"]["photo"] == str(folder / "bad.jpg") and told["bad.jpg"]["error"] in err

    (folder / "bad.jpg").write_bytes((folder / "0/0.jpg").read_bytes())
    os.utime(folder / "0/2.jpg")
    status, out, err = run(*bulk)
    assert (status, err) == (0, "") and out.startswith("2 of 7 photos stylized, 5 were done before, in ")
    assert {name for name, row in rows(output).items() if row["status"] == "made"} == {"bad.jpg", "0/2.jpg"}


@pytest.mark.release
@pytest.mark.timeout(600)
def test_a_larger_scale_from_a_list(run, ray_cluster, upscaler, tmp_path):
    photos(tmp_path / "in", 2, size=(16, 12))
    (tmp_path / "list.txt").write_text("in/0/0.jpg\nin/0/1.jpg\nin/0/none.jpg\n")
    options = ("--model", upscaler, "--scale", 4, "--format", "png", "--address", ray_cluster.address)
    status, out, err = run("bulk", tmp_path / "list.txt", tmp_path / "out", *options)
    assert status == 1 and out.startswith("2 of 3 photos enlarged 4 times, in ")
    assert err == f"{tmp_path}/in/0/none.jpg: cannot read it: No such file or directory\n"
    assert Image.open(tmp_path / "out/0.png").size == (64, 48)


@pytest.mark.release
@pytest.mark.timeout(900)
def test_a_job_that_is_killed_interrupted_and_loses_a_machine_makes_every_picture_once(
    run, ray_cluster, weights, tmp_path
):
    folder, output = photos(tmp_path / "in", 240), tmp_path / "out"
    options = [folder, output, "--model", weights, "--engine", "eager", "--address", ray_cluster.address]
    kill_9(started(*options, "--actors", 1), output, least=20)
    first = changed(output)
    assert 20 <= len(first) < 240
    check_whole(output)
    (output / "0" / ".7.jpg.99.tmp").write_bytes(b"a half")  # where it might have been

    with when(output, len(first) + 20, lambda: os.kill(os.getpid(), signal.SIGINT)):
        status, _, err = run("bulk", *options, "--actors", 1)
    assert status == 130 and err.endswith("photos were done; repeat the command to continue\n")
    second = changed(output)
    assert len(first) + 20 <= len(second) < 240 and {file: second[file] for file in first} == first
    assert len(first) <= count(output, "kept", "made") <= len(second)  # rows come after a block's last picture
    check_whole(output)

    node = ray_cluster.add_node(**NODE)
    ray_cluster.wait_for_nodes()
    with when(output, len(second) + 40, lambda: ray_cluster.remove_node(node, allow_graceful=False)):
        status, out, _ = run("bulk", *options, "--actors", 3)
    made = 240 - len(second)
    assert (status, out) == (0, f"{made} of 240 photos stylized, {len(second)} were done before, in {output}\n")
    third = changed(output)
    assert len(third) == count(output, "kept", "made") == 240 and {file: third[file] for file in second} == second
    assert not list(output.rglob(".*"))
    check_whole(output)


def test_ray_that_cannot_be_used_is_one_sentence(run, ray_cluster, weights, tmp_path, monkeypatch):
    bulk = ("bulk", photos(tmp_path / "in", 1), tmp_path / "out", "--model", weights)
    status, _, err = run(*bulk, "--address", ray_cluster.address, "--actors", 3)
    wanted = "3 actors of 1 processors and 2.5 GiB of memory"
    assert (status, err) == (1, f"perceptual: {wanted} do not fit on the machines of the cluster: 2 do\n")
    import ray

    for versions in (("2.0.0", platform.python_version()), (ray.__version__, "3.8.1")):
        with monkeypatch.context() as patch:
            patch.setattr("ray._private.utils.compute_version_info", partial(tuple, versions))
            status, _, err = run(*bulk, "--address", ray_cluster.address)
        assert status == 1 and err.count("\n") == 1 and all(version in err for version in versions)
        assert "Version mismatch" in err and err.endswith("; install the versions that the cluster has\n")
    for address in ("127.0.0.1:9", "ray://127.0.0.1:9"):
        status, _, err = run(*bulk, "--address", address)
        assert (status, err) == (1, f"perceptual: there is no Ray cluster at {address}: Connection refused\n")
    assert not list((tmp_path / "out").iterdir())  # nothing began


def test_without_a_terminal_a_line_now_and_then_says_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(command, "INTERVAL", 0.0)
    with command.progress(40) as advance:
        advance(10)
        time.sleep(0.1)
        advance(20)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"30 of 40 photos, \d+\.\d photos/s, 0:00:01 left", line)


@pytest.fixture
def convert(weights):
    """Converts photos in this process as an actor does; gives its rows."""

    def invoke(folder, output, *further, **changes):
        place = Place.at(str(folder))
        job = Job(read_files(str(weights), further), StyleOptions(), "cpu", "eager", 1, **changes)
        converter = Converter(job, [place], Place.at(str(output)), "jpeg")
        files = sorted(folder.rglob("*.jpg"), key=lambda file: int(file.stem))
        while block := [files.pop(0) for _ in range(min(16, len(files)))]:
            columns = {"place": [0] * len(block), "photo": [str(file) for file in block]}
            table = pa.table(columns | {"result": [file.relative_to(folder).as_posix() for file in block]})
            yield from converter(table).to_pylist()

    return invoke


def test_a_full_disk_stops_the_job_and_leaves_whole_pictures(convert, small_disk, tmp_path):
    photos(tmp_path / "in", 100)
    told = list(convert(tmp_path / "in", small_disk))
    made = [row["result"] for row in told if row["status"] == "made"]
    assert 5 < len(made) < 100 and {row["status"] for row in told} == {"made", "stopped"}
    assert told[-1]["error"] == f"cannot write {small_disk}/0/99.jpg: No space left on device"
    assert sorted(pictures(small_disk)) == sorted(made) and not list(small_disk.rglob(".*"))
    check_whole(small_disk)


def test_stylized_photos_are_enlarged(convert, run, weights, upscaler, tmp_path, monkeypatch):
    photos(tmp_path / "in", 2, size=(16, 12))
    made = list(convert(tmp_path / "in", tmp_path / "out", upscaler, enlarger=upscaler.name))
    assert [row["status"] for row in made] == ["made", "made"]
    shipped = {"super_resolution_x4": upscaler}
    monkeypatch.setattr("perceptual.inference.metadata.shipped_weights", lambda: shipped)
    machine = ("--device", "cpu", "--engine", "eager")
    options = ("--model", weights, "--scale", 4, *machine)
    assert run("stylize", tmp_path / "in", *options, "-o", tmp_path / "plain")[0] == 0
    assert pictures(tmp_path / "out") == pictures(tmp_path / "plain") != {}
    assert Image.open(tmp_path / "out/0/0.jpg").size == (64, 48)


def test_an_actor_takes_no_more_memory_with_the_photos(convert, tmp_path):
    photos(tmp_path / "in", 300, size=(8, 8))
    used = [
        psutil.Process().memory_full_info().uss
        for number, row in enumerate(convert(tmp_path / "in", tmp_path / "out"))
        if number in (100, 299) and row["status"] == "made"
    ]
    assert used[1] - used[0] < 4 << 20


@pytest.mark.release
@pytest.mark.timeout(600)
def test_a_full_disk_is_one_sentence(run, ray_cluster, weights, small_disk, tmp_path):
    options = ("--model", weights, "--address", ray_cluster.address, "--actors", 1)
    status, out, err = run("bulk", photos(tmp_path / "in", 400), small_disk, *options)
    assert (status, out) == (1, "") and err.count("\n") == 1 and "No space left on device: stopped" in err
    check_whole(small_disk)


@pytest.mark.release
@pytest.mark.timeout(3600)
def test_a_job_outlives_one_of_two_machines(run, ray_cluster, weights, tmp_path):
    folder, output = photos(tmp_path / "in", PHOTOS), tmp_path / "out"
    node = ray_cluster.add_node(**NODE)
    ray_cluster.wait_for_nodes()
    with when(output, PHOTOS // 2, lambda: ray_cluster.remove_node(node, allow_graceful=False)):
        options = ("--model", weights, "--engine", "eager", "--address", ray_cluster.address, "--actors", 3)
        status, out, _ = run("bulk", folder, output, *options)
    assert (status, out) == (0, f"{PHOTOS} of {PHOTOS} photos stylized, in {output}\n")
    assert count(output, "made") == PHOTOS == len(pictures(output))
    check_whole(output)


@pytest.mark.release
@pytest.mark.timeout(900)
def test_a_job_with_a_ray_of_its_own_ends_with_it(weights, tmp_path):
    folder, output = photos(tmp_path / "in", PHOTOS), tmp_path / "out"
    options = [folder, output, "--model", weights, "--engine", "eager", "--actors", 1]
    kill_9(started(*options), output, least=20)
    first = changed(output)
    job = started(*options)
    wait_for(lambda: len(pictures(output)) >= len(first) + 40, seconds=400)
    children = psutil.Process(job.pid).children(recursive=True)
    job.send_signal(signal.SIGINT)
    _, err = job.communicate(timeout=60)
    assert job.returncode == 130 and "photos were done; repeat the command to continue" in err
    assert not psutil.wait_procs(children, timeout=30)[1]
    assert {file: moment for file, moment in changed(output).items() if file in first} == first
    assert len(first) < count(output, "kept", "made") <= len(pictures(output)) < PHOTOS
    check_whole(output)


@pytest.mark.release
@pytest.mark.timeout(3600)
def test_memory_does_not_grow_with_the_number_of_photos(weights, tmp_path):
    folder, output = photos(tmp_path / "in", TINY, size=(8, 8)), tmp_path / "out"
    job = started(folder, output, "--model", weights, "--actors", 1, "--engine", "eager")
    used = []
    while job.poll() is None:
        used.append((len(list(output.rglob("*.jpg"))), taken(job.pid)))
        time.sleep(2)
    assert job.returncode == 0 and len(pictures(output)) == TINY
    early = max(memory for done, memory in used if 0 < done < TINY // 4)
    late = max(memory for done, memory in used if done >= TINY // 2)
    print(f"{early / 2**20:.0f} MiB in the first quarter, {late / 2**20:.0f} in the second half")
    assert late < 1.1 * early


def taken(pid):
    """Memory of a process and all that it started, in bytes, without what they share."""
    total = 0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            total += process.memory_full_info().uss
        except psutil.Error:
            continue
    return total
