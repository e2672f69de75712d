"""Bulk jobs on a Ray of this machine."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image
from serving_fixtures import wait_for

BULK = [sys.executable, "-c", "import sys; from perceptual.commands import main; sys.exit(main())", "bulk"]
SEED_COLORS = 64


@pytest.fixture(scope="module")
def ray_cluster():
    """A cluster on this machine, of one node with room for two actors."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    cluster.add_node(num_cpus=2, memory=5 << 30, object_store_memory=100 << 20, include_dashboard=False)
    yield cluster
    cluster.shutdown()


def photos(folder, count, size=(40, 30)):
    """Photos that all differ, in folders of a hundred."""
    for number in range(count):
        file = folder / f"{number // 100}" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        color = tuple(number // SEED_COLORS**place % SEED_COLORS * 4 for place in range(3))
        Image.new("RGB", size, color).save(file)
    return folder


def converts(process):
    """Whether a process is an actor of ours, or decodes for one."""
    return "MapWorker" in process.name() or "codecs.process" in " ".join(process.cmdline())


def rows(output):
    """The report, by result."""
    table = pq.read_table(output / "bulk.parquet").to_pylist()
    by_result = {row["result"]: row for row in table}
    assert len(by_result) == len(table)
    return by_result


def pictures(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.jpg")}


def test_the_same_pictures_as_stylize_and_a_row_for_each_photo(run, ray_cluster, weights, photo, tmp_path):
    folder, output = photos(tmp_path / "in", 5), tmp_path / "out"
    (folder / "0" / "1.png").write_bytes(photo)
    (folder / "bad.jpg").write_bytes(b"no image")
    (folder / "notes.txt").touch()
    bulk = ("bulk", folder, output, "--model", weights, "--address", ray_cluster.address, "--actors", 1)
    assert run("stylize", folder, "--model", weights, "-o", tmp_path / "plain")[0] == 1
    status, out, err = run(*bulk)
    assert out == f"6 of 7 photos stylized, in {output}; passed over 1 other file: notes.txt\n"
    assert (status, err) == (1, f"{folder / 'bad.jpg'}: this is not an image\n") or "bad.jpg" in err
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
    status, out, _ = run(*bulk, "--strength", "0.5")
    assert out.startswith("7 of 7 photos stylized, in ")


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
def test_a_job_cut_by_kill_9_is_completed_by_the_same_command(run, ray_cluster, weights, tmp_path):
    folder, output = photos(tmp_path / "in", 60), tmp_path / "out"
    options = [str(folder), str(output), "--model", str(weights), "--actors", "1", "--engine", "eager"]
    job = subprocess.Popen([*BULK, *options], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: job.poll() is not None or len(pictures(output)) >= 5, seconds=250)
        children = [each for each in psutil.Process(job.pid).children(recursive=True) if converts(each)]
        assert children
    finally:
        job.kill()
        job.wait()
    psutil.wait_procs(children, timeout=30)
    assert not [child for child in children if child.is_running()]  # nothing goes on writing
    before = pictures(output)
    assert 5 <= len(before) < 60
    times = {name: (output / name).stat().st_mtime_ns for name in before}
    (output / "0" / ".7.jpg.99.tmp").write_bytes(b"a half")
    status, out, _ = run("bulk", *options, "--address", ray_cluster.address)
    made = 60 - len(before)
    assert (status, out) == (0, f"{made} of 60 photos stylized, {len(before)} were done before, in {output}\n")
    assert len(pictures(output)) == 60 and not list(output.rglob(".*"))
    assert {name: (output / name).stat().st_mtime_ns for name in before} == times
    assert {Image.open(io.BytesIO(content)).size for content in pictures(output).values()} == {(40, 30)}


def test_ray_that_cannot_be_used_is_one_sentence(run, ray_cluster, weights, tmp_path, monkeypatch):
    bulk = ("bulk", photos(tmp_path / "in", 1), tmp_path / "out", "--model", weights)
    status, _, err = run(*bulk, "--address", ray_cluster.address, "--actors", 3)
    wanted = "3 actors of 1 processors and 2.5 GiB of memory"
    assert (status, err) == (1, f"perceptual: {wanted} do not fit on the machines at hand: 2 do\n")
    with monkeypatch.context() as patch:
        patch.setattr("ray.__version__", "2.0.0")
        status, _, err = run(*bulk, "--address", ray_cluster.address)
    assert status == 1 and err.count("\n") == 1
    assert "Version mismatch" in err and err.endswith("; install the versions that the cluster has\n")
    assert not pictures(tmp_path / "out")


@pytest.mark.release
@pytest.mark.timeout(3600)
def test_a_job_outlives_one_of_two_machines(run, ray_cluster, weights, tmp_path):
    count = int(os.environ.get("PERCEPTUAL_BULK_PHOTOS", 2000))
    folder, output = photos(tmp_path / "in", count), tmp_path / "out"
    second = ray_cluster.add_node(num_cpus=2, memory=5 << 30, object_store_memory=100 << 20)
    ray_cluster.wait_for_nodes()

    def kill():
        wait_for(lambda: len(pictures(output)) >= count // 2, seconds=3000)
        ray_cluster.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    bulk = ("bulk", folder, output, "--model", weights, "--address", ray_cluster.address, "--actors", 3)
    status, out, _ = run(*bulk, "--engine", "eager")
    killer.join()
    assert (status, out) == (0, f"{count} of {count} photos stylized, in {output}\n")
    told = rows(output)
    assert len(told) == count == len(pictures(output)) and {row["status"] for row in told.values()} == {"made"}


@pytest.mark.release
@pytest.mark.timeout(3600)
def test_memory_does_not_grow_with_the_number_of_photos(weights, tmp_path):
    count = int(os.environ.get("PERCEPTUAL_BULK_TINY", 20000))
    folder, output = photos(tmp_path / "in", count, size=(8, 8)), tmp_path / "out"
    options = [str(folder), str(output), "--model", str(weights), "--actors", "1", "--engine", "eager"]
    job = subprocess.Popen([*BULK, *options])
    used = []
    while job.poll() is None:
        used.append((len(list(output.rglob("*.jpg"))), taken(job.pid)))
        time.sleep(2)
    assert job.returncode == 0 and len(pictures(output)) == count
    early = max(memory for done, memory in used if 0 < done < count // 4)
    late = max(memory for done, memory in used if done >= count // 2)
    print(f"{early / 2**20:.0f} MiB in the first quarter, {late / 2**20:.0f} in the second half")
    assert late < 1.1 * early


@pytest.mark.release
@pytest.mark.timeout(600)
def test_ctrl_c_leaves_whole_pictures_and_a_report(weights, tmp_path):
    folder, output = photos(tmp_path / "in", 2000), tmp_path / "out"
    options = [str(folder), str(output), "--model", str(weights), "--actors", "1", "--engine", "eager"]
    job = subprocess.Popen([*BULK, *options], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(pictures(output)) >= 40, seconds=400)
    job.send_signal(signal.SIGINT)
    _, err = job.communicate(timeout=60)
    assert job.returncode == 130 and "photos were done; the same command goes on from there" in err
    assert {Image.open(io.BytesIO(content)).size for content in pictures(output).values()} == {(40, 30)}
    assert len(rows(output)) <= len(pictures(output)) < 2000


def taken(pid):
    """Memory of a process and all that it started, in bytes, without what they share."""
    total = 0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            total += process.memory_full_info().uss
        except psutil.Error:
            continue
    return total
