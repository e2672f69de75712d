import os
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from perceptual.client.model import Model, Worker
from perceptual.errors import ServerError
from perceptual.serving import scaling
from perceptual.serving.scaling import free_memory, peak, room_in_memory, room_on_gpus

MIB = 2**20


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A tree of control groups in which this process is in ``outer/inner``, with limits for both."""
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    for group, limit, current in ((inner, "max", 0), (inner.parent, str(900 * MIB), 600 * MIB)):
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{current}\n")
        (group / "memory.stat").write_text(f"anon 7\ninactive_file {100 * MIB}\nactive_file 3\n")
    monkeypatch.setattr(scaling, "CGROUPS", tmp_path)
    monkeypatch.setattr(scaling.Path, "read_text", read_text(scaling.Path.read_text))
    return inner


def read_text(real):
    return lambda file: "1:cpu:/x\n0::/outer/inner\n" if str(file).startswith("/proc/") else real(file)


def test_the_limits_of_control_groups_count(groups):
    assert free_memory(1) == 400 * MIB
    (groups / "memory.max").write_text("5\n")
    assert free_memory(1) == 5 + 100 * MIB
    (groups / "memory.current").write_text(f"{300 * MIB}\n")
    assert free_memory(1) == 0


def test_without_control_groups_it_is_the_machines(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "CGROUPS", tmp_path)
    monkeypatch.setattr(scaling.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 7}))
    assert free_memory(1) == 7


def test_a_worker_that_has_ended_takes_nothing_that_could_be_measured():
    with pytest.raises(ServerError, match="a worker ended"):
        peak(2**22 + 1)


def test_a_model_whose_workers_have_just_ended_is_told():
    with pytest.raises(ServerError, match="a worker ended just now"):
        room_in_memory(SimpleNamespace(pid=os.getpid()), Model("m", "1"))


@pytest.mark.parametrize(
    ("apps", "gpus", "fit"),
    [
        ({5: 1000, 9: 9000}, (), 1 + 2 * 3),
        ({5: 1000}, (0,), 1 + 7),
        ({9: 9000}, (), None),  # not ours: inside a container, process ids are others
    ],
)
def test_the_fullest_gpu_decides(monkeypatch, apps, gpus, fit):
    answers = {"compute-apps=pid,used_memory": apps, "gpu=index,memory.free": {0: 7500, 1: 3100}}
    monkeypatch.setattr(
        scaling, "ask_nvidia", lambda query: [(key, size * MIB) for key, size in answers[query].items()]
    )
    model = Model("m", "1", workers=(Worker(5, ready=True),), gpus=gpus)
    assert [room.fit for room in room_on_gpus(model)] == ([] if fit is None else [fit])


def test_a_gpu_whose_free_memory_is_not_known_is_told(monkeypatch):
    answers = {"compute-apps=pid,used_memory": [(5, 1000 * MIB)], "gpu=index,memory.free": []}
    monkeypatch.setattr(scaling, "ask_nvidia", answers.get)
    for gpus in ((), (0,)):
        with pytest.raises(ServerError, match="does not report what is free on the GPUs"):
            room_on_gpus(Model("m", "1", workers=(Worker(5, ready=True),), gpus=gpus))


def test_nvidia_smi_is_read(monkeypatch, tmp_path):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nprintf '41, 512\\n42, [N/A]\\n'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert list(scaling.ask_nvidia("compute-apps=pid,used_memory")) == [(41, 512 * MIB)]
    smi.write_text("#!/bin/sh\nexit 9\n")
    with pytest.raises(ServerError, match="nvidia-smi fails"):
        list(scaling.ask_nvidia("compute-apps=pid,used_memory"))


def test_a_model_without_workers_stays_so_if_it_cannot_be_scaled(monkeypatch):
    class Management:
        wanted = 0

        def describe(self, name, version):
            return Model("m", "1", self.wanted)

        def ready_workers(self, name, version):
            return [1] * self.wanted

        def scale(self, name, workers, version, progress=None):
            if workers > 1:
                raise ServerError("a worker fails to start")
            self.wanted = workers

        def restore_workers(self, name, workers, version):
            self.wanted = workers

    management = Management()
    monkeypatch.setattr(scaling, "choose", lambda server, described, workers: workers)
    server = SimpleNamespace(management=lambda: nullcontext(management))
    with pytest.raises(ServerError, match="a worker fails to start"):
        scaling.scale(server, "m", 2)
    assert management.wanted == 0
