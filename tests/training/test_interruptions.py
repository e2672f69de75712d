import errno
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from training_fixtures import PROGRAM

from perceptual.errors import TrainingError
from perceptual.files import remove_leftovers, write_atomically
from perceptual_training.checkpoint import newest_sound
from perceptual_training.locks import SCRATCH, locked
from perceptual_training.loop import Run, advice
from perceptual_training.style import train_style


@pytest.fixture
def arguments(photos, painting, loss_weights, tmp_path):
    """A command line of a training without end."""
    return f"""train style --content-dir {photos} --style-image {painting} --loss-weights {loss_weights}
        --init-features 4 --num-residuals 1 --image-size 32 --style-size 32 --batch-size 2 --iterations 100000
        --num-workers 1 --samples 1 --log-step 1 --save-step 1 --sample-step 100000 --sample-path {tmp_path}/run
        --model-path {tmp_path}/m.safetensors --device cpu""".split()


@pytest.fixture
def start(scratch):
    """Starts the process of a command line, and gives it once it has trained some iterations."""
    processes = []

    def starting(*arguments):
        environment = os.environ | {"TMPDIR": str(scratch)}
        command = [sys.executable, "-c", PROGRAM, *arguments]
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment))
        logged = (line for line in processes[-1].stderr if "/100000 " in line)
        assert next(logged) and next(logged)  # the checkpoint of the first iteration is there by the second
        return processes[-1]

    yield starting
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def scratch():
    """A folder for temporary files with a short path, as sockets need."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_what_a_killed_training_leaves_is_removed_by_the_next(arguments, tmp_path, run, scratch, start):
    others = [scratch / "somebody's", scratch / f"{SCRATCH}without_a_lock", tmp_path / "run/.checkpoint.pt.keep.tmp"]
    for other in others:
        other.mkdir(parents=True)
    first = start(*arguments)
    assert len(list(scratch.glob(f"{SCRATCH}*/lock"))) == 1
    status, _, errors = run(*arguments, "--resume")
    assert status == 1 and "another training writes to" in errors and errors.count("\n") == 1
    first.kill()
    first.wait()
    (tmp_path / "run/.checkpoint.pt.123.tmp").write_bytes(b"half")
    (tmp_path / "run/.checkpoint_previous.pt.123.tmp").write_bytes(b"half")
    (tmp_path / ".m.safetensors.123.tmp").write_bytes(b"half")

    second = start(*arguments, "--resume")
    assert len(list(scratch.glob(f"{SCRATCH}*/lock"))) == 1
    second.send_signal(signal.SIGTERM)
    second.communicate(timeout=60)
    assert second.returncode == 130
    assert all(other.is_dir() for other in others)
    assert {path.name for path in scratch.iterdir()} == {others[0].name, others[1].name}
    left = [path.name for path in (*tmp_path.iterdir(), *(tmp_path / "run").iterdir()) if path.name.startswith(".")]
    assert left == [".checkpoint.pt.keep.tmp"]


def test_a_lock_is_of_one_process_and_goes_with_it(tmp_path):
    program = f"""
import sys, time
from pathlib import Path
from perceptual_training.locks import locked
with locked(Path({str(tmp_path / "file")!r}), "--name"):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    message = "another training writes to .*file now: .* another --name"
    with pytest.raises(TrainingError, match=message), locked(tmp_path / "file", "--name"):
        pass
    holder.kill()
    holder.wait()
    with locked(tmp_path / "file", "--name"):
        assert (tmp_path / ".file.lock").exists()
    assert not (tmp_path / ".file.lock").exists()


def test_weights_that_cannot_be_written_are_reported_before_the_loss_network_is_read(settings, tmp_path):
    (tmp_path / "file").touch()
    run = settings(model_path=tmp_path / "file/weights.safetensors", loss_weights=tmp_path / "missing")
    with pytest.raises(TrainingError, match=r"file/weights.safetensors cannot be written: .* another --model-path"):
        train_style(run)
    assert not run.sample_path.joinpath("train.log").exists()


def test_fewer_photos_than_a_batch_are_reported_before_the_loss_network_is_read(settings, tmp_path):
    with pytest.raises(TrainingError, match=r"20 photos of the train split in .* are fewer than a batch of 21"):
        train_style(settings(batch_size=21, loss_weights=tmp_path / "missing"))


def damage(file):
    state = torch.load(file, weights_only=True)
    next(iter(state["optimizers"][0]["state"].values()))["exp_avg"].fill_(float("nan"))
    torch.save(state, file)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(damage, "has numbers that are not finite"), (lambda file: file.write_bytes(b"half"), "is damaged")],
)
def test_a_run_goes_on_from_the_newest_checkpoint_that_is_sound(settings, spoil, reason):
    train_style(settings())
    run = settings(iterations=7)
    file, before = (run.sample_path / f"{name}.pt" for name in ("checkpoint", "checkpoint_previous"))
    whole = Run("stripes", run.sample_path, run.model_path)
    assert f"The last good checkpoint is {file}" in advice(whole)
    spoil(file)
    assert f"The last good checkpoint is {before}" in advice(whole)
    assert newest_sound(file)[1]["iteration"] == 3
    train_style(run, resume=True)
    log = (run.sample_path / "train.log").read_text()
    assert f"{file} {reason}" in log and f"continuing from {before}" in log
    assert newest_sound(file)[1]["iteration"] == 7


def test_at_every_moment_there_is_a_sound_checkpoint(settings, monkeypatch):
    train_style(settings())
    file = settings().sample_path / "checkpoint.pt"
    damage(file)
    kept = []

    def full(path, content):
        kept.append((file.exists(), newest_sound(file)[1]["iteration"]))
        if path == file and len(kept) == 1:  # the first that is written after the damage
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_atomically(path, content)

    monkeypatch.setattr("perceptual_training.checkpoint.write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        train_style(settings(iterations=7), resume=True)
    assert newest_sound(file)[1]["iteration"] == 3
    train_style(settings(iterations=9), resume=True)
    assert newest_sound(file)[1]["iteration"] == 9
    assert kept == [(True, 3), (True, 3), (True, 6), (True, 6)]


def test_a_run_killed_between_two_checkpoints_goes_on_from_the_first(settings):
    train_style(settings())
    (settings().sample_path / "checkpoint.pt").unlink()
    with pytest.raises(TrainingError, match="has a run already"):
        train_style(settings())
    assert train_style(settings(iterations=7), resume=True)


def test_a_checkpoint_by_itself_of_these_parts_resumes(settings):
    """So it was before two were kept; long trainings resume with newer code."""
    train_style(settings(iterations=3))
    file = settings().sample_path / "checkpoint.pt"
    assert [path.name for path in file.parent.glob("*.pt")] == ["checkpoint.pt"]
    assert torch.load(file, weights_only=True).keys() == {
        *("iteration", "seconds", "machines", "rising_from", "photos", "earlier"),
        *("settings", "sources", "network", "optimizers", "random", "random_cuda"),
    }
    train_style(settings(), resume=True)


def test_a_full_disk_is_reported_with_its_path(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    file = tmp_path / "checkpoint.pt"
    write_atomically(file, b"old")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(OSError, match="checkpoint.pt") as raised:
            write_atomically(file, bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.errno == errno.EFBIG
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


def test_leftovers_are_those_of_one_file_alone(tmp_path):
    kept = [tmp_path / name for name in (".a.pt.x.tmp", ".b.pt.12.tmp", "a.pt", ".a.pt.12.tmp.old")]
    for file in (*kept, tmp_path / ".a.pt.12.tmp", tmp_path / ".a.pt.345.tmp"):
        file.touch()
    remove_leftovers(tmp_path / "a.pt")
    assert sorted(tmp_path.iterdir()) == sorted(kept)
