import io
import json
import math
import os
import re
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from serving_fixtures import Http, wait_for

from perceptual.client.addresses import server_at
from perceptual.client.model import Worker
from perceptual.commands import status as command
from perceptual.errors import InvalidImage
from perceptual.serving import server as server_module
from perceptual.serving.status import STAGES, ModelStatus, Status, measured, quantile, read_metrics, read_status
from perceptual.worker import measure

BUCKETS = [(0.1, 10.0), (0.5, 10.0), (1.0, 20.0), (math.inf, 20.0)]


@pytest.fixture
def counted(server, photo):
    """What two good requests and one bad one have added to tiny's replies, and when they began."""
    begin = outcomes(server)
    with server.address.inference() as client:
        for data in (photo, photo, b"no picture"):
            client.request("POST", "/predictions/tiny", data=data, headers={"Content-Type": "application/octet-stream"})
    wait_for(lambda: sum(outcomes(server).values()) >= sum(begin.values()) + 3)  # by way of a log
    after = outcomes(server)
    return {name: count - begin.get(name, 0) for name, count in after.items()}


def outcomes(server):
    (model,) = read_status(server.address).models
    return model.replies


@pytest.mark.parametrize(
    ("share", "buckets", "value"),
    [
        (0.5, BUCKETS, 0.1),
        (0.25, BUCKETS, 0.05),
        (0.75, BUCKETS, 0.75),
        (1.0, BUCKETS, 1.0),
        (0.9, [(1.0, 5.0), (math.inf, 10.0)], math.inf),
    ],
)
def test_quantiles_are_interpolated_as_prometheus_does(share, buckets, value):
    assert quantile(share, buckets) == pytest.approx(value)


def test_a_quantile_of_nothing_is_no_number():
    assert math.isnan(quantile(0.5, [(1.0, 0.0), (math.inf, 0.0)]))


def test_a_model_is_healthy_if_a_worker_is_ready_or_none_is_wanted():
    up, down = Worker(1, True, "CPU", None), Worker(2, False, "CPU", None)
    assert ModelStatus("m", "1", wanted=2, waiting=0, workers=[down, up]).healthy
    assert ModelStatus("m", "1", wanted=0, waiting=0, workers=[]).healthy
    assert not ModelStatus("m", "1", wanted=2, waiting=0, workers=[down]).healthy
    assert not ModelStatus("m", "1", wanted=1, waiting=0, workers=[]).healthy


def test_a_worker_without_a_process_is_told_as_such():
    told = {"pid": -1, "status": "UNLOADING", "gpu": False, "gpuUsage": "N/A", "memoryUsage": 0}
    worker = measured(Worker.parse(told))
    assert worker == Worker(-1, False, "CPU", None)
    model = ModelStatus("m", "1", wanted=1, waiting=0, workers=[worker])
    assert command.worker_row(model, worker) == ["none", "m", "1", "loading or down", "CPU", "?"]


def test_the_metrics_configuration_lists_what_the_handlers_tell():
    listed = yaml.safe_load(server_module.METRICS.read_text())["model_metrics"]
    found = {
        each["name"]: (kind, each["unit"], each["dimensions"])
        for kind in ("counter", "histogram")
        for each in listed[kind]
    }
    told = {
        name: (kind.value, unit, [*measure.MODEL, *labels]) for name, (kind, unit, labels) in measure.METRICS.items()
    }
    assert found == told


def test_requests_are_counted_and_timed(server, counted):
    assert counted["ok"] == 2 and counted["InvalidImage"] == 1
    text = Http(server.address.metrics_url).get("/metrics").text
    buckets = read_metrics(text).buckets["tiny", "1.2"]
    assert {"decode", "infer", "encode"} <= buckets.keys() <= {"wait", "decode", "infer", "encode"}
    assert buckets["decode"][-1][1] >= buckets["infer"][-1][1] + 1  # the bad one was not run
    (model,) = read_status(server.address).models
    assert model.idle and model.begun >= 3
    assert all(0 < p50 <= p95 for p50, p95 in model.stages.values())
    assert [*model.stages] == [stage for stage in STAGES if stage in model.stages]


def test_sizes_and_errors_are_histograms(server, photo):
    before = histograms(server)
    with server.address.inference() as client:
        reply = client.stylize(photo, "tiny")
        with pytest.raises(InvalidImage):
            client.stylize(b"no picture", "tiny")
    wait_for(lambda: added(histograms(server), before, "perceptual_reply_seconds_count") == 2)

    after = histograms(server)

    def more(name, **labels):
        return pytest.approx(added(after, before, name, **labels))

    assert more("perceptual_reply_seconds_count", Outcome="ok") == 1
    assert more("perceptual_reply_seconds_count", Outcome="InvalidImage") == 1
    assert more("perceptual_megabytes_sum", Direction="in") == (len(photo) + len(b"no picture")) / 1e6
    assert added(after, before, "perceptual_megabytes_sum", Direction="out") > len(reply) / 1e6  # and the error
    assert more("perceptual_megapixels_sum") == 64 * 48 / 1e6
    assert more("perceptual_megapixels_bucket", le="0.005") == 1
    assert (
        added(after, before, "perceptual_tiles_bucket", le="1.0") == added(after, before, "perceptual_tiles_sum") == 1
    )


def histograms(server):
    """The samples of the server's metrics."""
    text = Http(server.address.metrics_url).get("/metrics").text
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def added(after, before, name, **labels):
    """What has been added to the samples of that name and with these labels."""

    def total(samples):
        return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())

    return total(after) - total(before)


def test_every_request_leaves_one_line_in_the_log(server, counted):
    log = Path(server.address.logs, "model_log.log").read_text().splitlines()
    told = [json.loads(line[line.index("{") :]) for line in log if '"request_id"' in line]
    assert len({each["request_id"] for each in told}) == len(told)
    *_, first, second, bad = told
    assert (bad["status"], bad["outcome"], bad["bytes_in"]) == (400, "InvalidImage", len(b"no picture"))
    for good in (first, second):
        assert (good["status"], good["outcome"], good["pixels"]) == (200, "ok", 64 * 48)
        assert good["bytes_out"] > 500 and min(good["decode_ms"], good["infer_ms"], good["encode_ms"]) > 0


def test_status_tells_workers_and_latencies(run, server, counted):
    status, out, _ = run("status", "--port", urlsplit(server.address.inference_url).port)
    assert status == 0 and out.startswith("healthy (/ping: Healthy)")
    (worker,) = read_status(server.address).models[0].workers
    assert 2**27 < worker.memory < 2**32
    row = next(line.split() for line in out.splitlines() if line.split()[:1] == [str(worker.pid)])
    assert row[1:] == ["tiny", "1.2", "ready", "CPU", f"{worker.memory / 2**20:.0f}", "MiB"]
    assert "infer " in out and " InvalidImage" in out


def test_status_sees_a_dead_worker_that_ping_does_not(run, server):
    (worker,) = read_status(server.address).models[0].workers
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: read_status(server.address).unhealthy)
    status, out, _ = run("status", "--port", urlsplit(server.address.inference_url).port)
    assert status == 1 and out.startswith("unhealthy: no worker is ready for tiny 1.2 (/ping: ")
    wait_for(server.healthy, seconds=30)


def test_a_server_elsewhere_is_told_by_its_own_words(server):
    elsewhere = server_at(server.address.management_url, server.address.key_file)
    (worker,) = read_status(elsewhere).models[0].workers
    assert worker.ready and worker.pid == read_status(server.address).models[0].workers[0].pid


@pytest.mark.parametrize("url", ["localhost", "http://localhost:many", "ftp://a"])
def test_a_server_elsewhere_needs_an_address(run, url):
    status, _, err = run("status", "--url", url)
    assert status == 1 and err.startswith("perceptual: expected an address such as http://127.0.0.1:8081, got ")


def test_the_memory_of_a_worker_elsewhere_is_what_torchserve_tells():
    described = {"pid": os.getpid(), "status": "READY", "gpu": False, "memoryUsage": 2**28}
    worker = Worker.parse(described)
    assert worker.memory == 2**28
    assert measured(worker).memory != 2**28
    assert Worker.parse({**described, "memoryUsage": 0}).memory is None


def test_watching_goes_on_until_it_is_stopped(run, server, monkeypatch):
    rounds = []

    def sleep(seconds):
        rounds.append(seconds)
        if len(rounds) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(command, "time", type("Clock", (), {"sleep": staticmethod(sleep)}))
    status, out, _ = run("status", "--watch", "--port", urlsplit(server.address.inference_url).port)
    assert status == 130 and out.count("healthy (/ping: Healthy)") == 2 and rounds == [command.INTERVAL] * 2


def test_json_has_what_the_tables_have(run, server, counted):
    port = urlsplit(server.address.inference_url).port
    (model,) = json.loads(run("status", "--json", "--port", port)[1])["models"]
    assert (model["name"], model["version"], len(model["workers"])) == ("tiny", "1.2", 1)
    assert model["replies"]["ok"] >= 2 and model["stages"]["infer"][0] > 0
    (listed,) = json.loads(run("models", "list", "--json", "--port", port)[1])
    assert (listed["name"], listed["default"], listed["ready"], listed["archive"]) == ("tiny", True, 1, "tiny.mar")


@pytest.mark.slow
def test_a_small_window_shows_what_matters_most(monkeypatch):
    up, down = Worker(1, True, "CPU", 2**29), Worker(2, False, "CPU", None)
    stages = {
        "wait": (0.04, 0.23),
        "decode": (0.04, 0.96),
        "infer": (0.2, math.inf),
        "match": (3, 4),
        "encode": (0.05, 0.7),
    }
    replies = {"ok": 12345, "InvalidImage": 3, "ImageTooLarge": 1}
    models = [ModelStatus(f"model_{i}", "1.0", 1, 0, [up], replies=replies, stages=stages) for i in range(30)]
    models[20] = ModelStatus("broken", "1.0", 1, 3, [down])
    printer = Console(width=80, height=24, force_terminal=True, file=io.StringIO())
    printer.print(command.fitting(Status(models, "Healthy"), printer))
    shown = printer.file.getvalue().splitlines()
    assert len(shown) < 24 and max(map(len, map(plain, shown))) <= 80
    assert "unhealthy" in shown[0]
    rows = [line.split()[0] for line in shown if line.startswith((" broken", " model_"))]
    assert rows[:2] == ["broken", "model_0"]
    assert "more rows, for a taller window" in shown[-1]
    assert len(rows) >= 6 and "infer 200 ms" in "".join(shown)
    tall = Console(width=200, height=200, force_terminal=True, file=io.StringIO())
    tall.print(command.fitting(Status(models, "Healthy"), tall))
    assert "more rows" not in tall.file.getvalue() and "512 MiB" in tall.file.getvalue()
    names = ("super_resolution_x4", "starry_night", "mine")  # as many as a server usually has
    few = Status([ModelStatus(name, "1.0", 1, 0, [up], replies=replies, stages=stages) for name in names], "Healthy")
    printer = Console(width=80, height=24, force_terminal=True, file=io.StringIO())
    printer.print(command.fitting(few, printer))
    assert "more rows" not in printer.file.getvalue() and printer.file.getvalue().count("512 MiB") == 3


def plain(line):
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


def test_status_without_a_server_is_one_line(run, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    status, _, err = run("status")
    assert status == 1 and err == "perceptual: no server is running; start one with: perceptual serve\n"
