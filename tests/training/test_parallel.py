import os
import re
import signal
import socket
import subprocess
import sys

import pytest
import torch
from training_fixtures import FORKSERVER, PROGRAM, run_as_process

from perceptual.errors import InvalidOption
from perceptual.inference.metadata import read_metadata
from perceptual.inference.networks import StyleNetwork
from perceptual_training import parallel


def determined(network):
    """Weights by name, without the shift of the last norm of the block, of which the next norm leaves nothing.

    Its gradients are rounding errors.
    """
    if "styles" not in network:
        return network
    norm = StyleNetwork(init_features=4, num_residuals=1).blocks[0].body[4]
    end = norm.place.stop
    styles = network["styles"][..., [*range(end - norm.features), *range(end, network["styles"].shape[-1])]]
    return network | {"styles": styles}


@pytest.fixture
def arguments(photos, paintings, loss_weights, tmp_path):
    """The command line of a training of a name."""
    tasks = {
        "style": f"--style-image {paintings}/stripes.png --style-size 32",
        "styles": f"--style-dir {paintings} --style-sizes 64",
        "super-resolution": "--loss pixel",
    }

    def command(name, options, task="style"):
        return f"""train {task} {tasks[task]}
            --content-dir {photos} --loss-weights {loss_weights} --init-features 4 --num-residuals 1
            --image-size 32 --batch-size 4 --num-workers 0 --samples 1 --log-step 1
            --sample-path {tmp_path / name} --model-path {tmp_path / name}.safetensors --device cpu
            --precision float32 --optimizer adam {options}""".split()

    return command


@pytest.fixture
def finish(arguments, tmp_path):
    """Runs a training to its end, in so many processes."""

    def finish_training(processes, name, options, task="style"):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        running = []
        for rank in range(processes):
            # What torchrun sets.
            environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "TORCHELASTIC_RUN_ID": "a run"}
            errors = tmp_path / f"{name}_{rank}.log"
            given = arguments(name, options, task), environment if processes > 1 else {}, errors
            running.append(FORKSERVER.Process(target=run_as_process, args=given))
            running[-1].start()
        for rank, process in enumerate(running):
            process.join(250)
            assert process.exitcode == 0, (tmp_path / f"{name}_{rank}.log").read_text()

    return finish_training


def checkpoint(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def losses(folder):
    lines = (folder / "train.log").read_text().splitlines()
    return [line.split("total ")[1].split()[0] for line in lines if re.match(r"\d+/", line)]


def test_two_processes_train_as_one_does_and_each_goes_on_with_the_other_s_run(finish, tmp_path):
    steady = "--steadiness-weight 20"  # which has noise for each photo
    finish(1, "alone", f"{steady} --iterations 4")
    finish(2, "mixed", f"{steady} --iterations 2")
    finish(1, "mixed", f"{steady} --iterations 3 --resume")
    finish(2, "mixed", f"{steady} --iterations 4 --resume")
    alone, mixed = checkpoint(tmp_path / "alone"), checkpoint(tmp_path / "mixed")
    for index in range(len(alone["network"])):
        gradient, other = (run["optimizers"][0]["state"][index]["exp_avg"] for run in (alone, mixed))
        torch.testing.assert_close(other, gradient, rtol=1e-3, atol=1e-2)
    weights, others = determined(alone["network"]), determined(mixed["network"])
    torch.testing.assert_close(others, weights, rtol=1e-4, atol=1e-5)
    assert torch.equal(alone["random"], mixed["random"])
    assert losses(tmp_path / "mixed") == losses(tmp_path / "alone")  # four digits of the means over all processes
    assert len(list((tmp_path / "mixed").glob("events.out.tfevents*"))) == 3  # one for each of the three runs


@pytest.mark.parametrize("task", ["styles", "super-resolution"])
def test_numbers_drawn_for_each_photo_do_not_depend_on_the_processes(finish, tmp_path, task):
    """Styles, noise, and in what way a photo is reduced."""
    for processes, name in ((1, "alone"), (2, "both")):
        finish(processes, name, "--steadiness-weight 20 --iterations 3", task)
    alone, both = checkpoint(tmp_path / "alone"), checkpoint(tmp_path / "both")
    assert torch.equal(alone["random"], both["random"])
    assert losses(tmp_path / "both") == losses(tmp_path / "alone")
    torch.testing.assert_close(determined(both["network"]), determined(alone["network"]), rtol=1e-4, atol=1e-5)


@pytest.mark.release
def test_two_processes_come_as_far_as_one_with_muon(finish, tmp_path):
    finish(1, "alone", "--iterations 4 --optimizer muon")
    finish(2, "both", "--iterations 4 --optimizer muon")
    assert losses(tmp_path / "both") == losses(tmp_path / "alone")
    both, alone = (determined(checkpoint(tmp_path / name)["network"]) for name in ("both", "alone"))
    torch.testing.assert_close(both, alone, rtol=0, atol=1e-4)  # the step is 1e-3


@pytest.mark.release
def test_a_signal_stops_all_processes_with_one_checkpoint(arguments, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, tmp_path / "program.py", *arguments("run", "--iterations 100000 --num-workers 1")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    for line in process.stderr:
        if line.startswith("3/"):
            process.send_signal(signal.SIGTERM)
            break
    _, rest = process.communicate(timeout=60)
    done = checkpoint(tmp_path / "run")["iteration"]
    log = (tmp_path / "run/train.log").read_text()
    assert log.count(f"stopped after {done} of 100000 iterations; continue with --resume") == 1, rest
    assert read_metadata(tmp_path / "run.safetensors")["provenance"]["iterations"] == done


def test_a_batch_that_the_processes_cannot_share_is_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a run")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InvalidOption, match="batch-size: expected a multiple of the 3 processes, got 4"):
        parallel.join(torch.device("cpu"), 4)


def test_a_norm_over_the_whole_batch_is_refused(monkeypatch):
    monkeypatch.setattr(parallel, "world_size", lambda: 2)
    network = StyleNetwork(**StyleNetwork.presets["paper"])
    with pytest.raises(InvalidOption, match="preset: paper normalizes over the whole batch"):
        parallel.synchronized(network, None)
