import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
from PIL import Image
from serving_fixtures import Http, altered, free_port, wait_for

from perceptual.archives.build import package
from perceptual.client.addresses import find_server
from perceptual.client.inference import InferenceClient
from perceptual.client.tokens import Tokens
from perceptual.errors import InputError, InvalidOption, ServerError
from perceptual.serving.processes import group_members
from perceptual.serving.server import Server

OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def client(server):
    with server.address.inference() as client:
        yield client


def encode(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def decode(data):
    return Image.open(io.BytesIO(data))


def test_pictures_come_back(client, photo):
    out = decode(client.stylize(photo, "tiny"))
    assert (out.format, out.size) == ("JPEG", (64, 48))


def test_options_arrive(client, photo):
    unchanged = decode(client.stylize(photo, "tiny", strength=0, format="png"))
    assert np.array_equal(np.asarray(unchanged), np.asarray(decode(photo)))
    stylized = decode(client.stylize(photo, "tiny", keep_colors=False, max_size=32, format="webp", quality=None))
    assert (stylized.format, stylized.size) == ("WEBP", (32, 24))


def test_takes_paths_and_pil_images(client, photo, tmp_path):
    (tmp_path / "photo.png").write_bytes(photo)
    expected = client.stylize(photo, "tiny", format="png")
    assert client.stylize(tmp_path / "photo.png", "tiny", format="png") == expected
    assert client.stylize(decode(photo), "tiny", format="png") == expected
    cmyk = decode(photo).convert("CMYK")  # which PNG has not
    assert decode(client.stylize(cmyk, "tiny", format="png")).size == cmyk.size


@pytest.mark.parametrize("content_type", [None, "image/png", "text/plain", "application/json"])
def test_raw_body_as_curl_sends_it(client, photo, content_type):
    headers = {"Content-Type": content_type} if content_type else {}
    reply = client.request("PUT", "/predictions/tiny", data=photo, headers=headers)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/jpeg")
    assert decode(reply.content).size == (64, 48)


def test_multipart_form(client, photo):
    form = {"files": {"data": ("photo.png", photo)}, "data": {"strength": "0", "format": "png"}}
    reply = client.request("POST", "/predictions/tiny", **form)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/png")
    assert np.array_equal(np.asarray(decode(reply.content)), np.asarray(decode(photo)))


def test_replies_over_torchserves_own_limit(client):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8))
    reply = client.stylize(encode(noise, "PNG", compress_level=0), "tiny", strength=0, format="png")
    assert len(reply) > 6_553_500


def test_errors_of_one_batch_leave_its_other_requests_alone(server, client, management, weights, photo):
    source = weights.with_name("batched.safetensors")
    source.write_bytes(weights.read_bytes())
    package(source, server.model_store)
    grey = Image.new("L", (9000, 8000))
    requests = [
        (200, photo, {}),
        (400, b"this is no picture", {}),
        (400, photo[: len(photo) // 2], {}),
        (415, encode(Image.new("RGB", (4, 4)), "PPM"), {}),
        (413, encode(grey, "PNG"), {}),
        (422, photo, {"X-Strength": "7"}),
        (406, photo, {"Accept": "text/html"}),
        (200, encode(decode(photo).resize((40, 40)), "JPEG"), {"Accept": "image/webp"}),
    ]
    management.register("batched.mar", batch_size=len(requests), max_batch_delay=3000)
    worker = management.ready_workers("batched")
    try:
        with ThreadPoolExecutor(len(requests)) as pool:

            def post(request):
                return client.request("POST", "/predictions/batched", data=request[1], headers=OCTETS | request[2])

            replies = list(pool.map(post, requests))
        assert [reply.status_code for reply in replies] == [status for status, _, _ in requests]
        for reply in replies:
            if reply.status_code == 200:
                assert decode(reply.content).size in {(64, 48), (40, 40)}
            else:
                assert reply.headers["content-type"] == "application/json"
                assert reply.json().keys() == {"error", "detail"}
        log = set(Path(server.address.logs, "ts_log.log").read_text().splitlines())  # it has each line twice
        batches = [line for line in log if "-batched_1.2 " in line and "Flushing req.cmd PREDICT" in line]
        assert len(batches) == 1, "the requests did not meet in one batch, so the above proves nothing"
        assert management.ready_workers("batched") == worker
    finally:
        management.unregister("batched")
    assert "batched" not in management.models()


def test_a_model_describes_what_requests_may_ask_for(management):
    told = management.capabilities("tiny")
    assert told["styles"] == [{"name": "tiny"}] and told["scales"] == []
    options = {each["name"]: each for each in told["options"]}
    assert options["strength"] == {
        "name": "strength",
        "values": "a number from 0 to 1",
        "default": 1.0,
        "meaning": "share of the style; the rest is the photo itself",
    }
    assert told["limits"].items() >= {"max_pixels": 67108864, "max_tile": 2048}.items()
    assert {"JPEG", "PNG", "WEBP"} <= {each.upper() for each in told["formats"]}


def test_registering_again_is_refused_and_changes_nothing(management):
    with pytest.raises(ServerError, match=r"already registered.*unregister it first"):
        management.register("tiny.mar")
    assert management.ready_workers("tiny")


def test_a_model_that_fails_to_register_is_not_kept(server, management):
    broken = server.model_store / "broken.mar"
    altered(server.model_store / "tiny.mar", broken, {"tiny.safetensors": b"junk"}, modelName="broken")
    try:
        with pytest.raises(ServerError, match="Failed to start workers"):
            management.register("broken.mar")
    finally:
        broken.unlink()
    assert management.models() == {"tiny": "tiny.mar"}


def test_unknown_models(client, management, photo):
    with pytest.raises(ServerError, match="Model not found: nobody"):
        client.stylize(photo, "nobody")
    for action in (management.describe, management.unregister, lambda name: management.scale(name, 1)):
        with pytest.raises(ServerError, match="Model not found: nobody"):
            action("nobody")
    with pytest.raises(ServerError, match="Model not found"):
        management.register("nobody.mar")


def test_errors_arrive_as_exceptions(client, photo):
    with pytest.raises(InvalidOption, match=r"strength: expected a number from 0 to 1, got '\\\\xe4\\\\n'"):
        client.stylize(photo, "tiny", strength="ä\n")
    with pytest.raises(InputError, match="No such file"):
        client.stylize("nowhere.jpg", "tiny")


def test_a_token_is_required(server, photo):
    with InferenceClient(server.address.inference_url) as stranger, pytest.raises(ServerError, match="valid token"):
        stranger.stylize(photo, "tiny")
    wrong = Tokens(server.address.key_file, "management", server.address.management_url)
    with InferenceClient(server.address.inference_url, wrong) as stranger, pytest.raises(ServerError, match="token"):
        stranger.stylize(photo, "tiny")


def test_tokens_are_renewed(server, client, photo, monkeypatch):
    before = client.session.auth.read()["inference"]["key"]
    monkeypatch.setattr("perceptual.client.tokens.RENEW_WITHIN", 3605.0)
    client.stylize(photo, "tiny")
    monkeypatch.undo()
    after = client.session.auth.read()["inference"]["key"]
    assert after != before
    client.stylize(photo, "tiny")
    assert client.session.auth.read()["inference"]["key"] == after


def test_urls_cannot_be_registered(management):
    with pytest.raises(ServerError, match="does not match any allowed URL"):
        management.send("POST", "/models", params={"url": "http://127.0.0.1:1/evil.mar"})


def test_logs_grow_little_and_none_is_written_to_twice(server, client, photo):
    def sizes():
        return {file.name: file.stat().st_size for file in server.logs.folder.glob("*.log")}

    client.stylize(photo, "tiny")
    before = sizes()
    assert before.keys() == {"console.log", "model_log.log", "requests.log", "ts_log.log"}
    for _ in range(20):
        client.stylize(photo, "tiny")
    grown = {name: (size - before[name]) / 20 for name, size in sizes().items()}
    assert grown["console.log"] == 0 and sum(grown.values()) < 2500
    lines = [line for name in before for line in (server.logs.folder / name).read_text().splitlines() if line]
    assert len(lines) < 1.05 * len(set(lines))


def test_metrics_are_there(server):
    assert "ts_inference_requests_total" in Http(server.address.metrics_url).get("/metrics").text


def test_is_found_by_its_user_alone(server):
    port = urlsplit(server.address.inference_url).port
    assert find_server() == find_server(port) == server.address
    state = Path(os.environ["XDG_RUNTIME_DIR"], "torchserve-perceptual", f"{port}.json")
    assert state.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ServerError, match="no server is running on port 1"):
        find_server(1)


def test_health_is_that_of_the_workers(server, management, client, photo):
    def ready():
        reply = http.get("/ready")
        return reply.status_code, reply.json()["missing"]

    with Http(server.address.inference_url) as http:
        assert server.healthy()
        wait_for(lambda: ready() == (200, []))
        (worker,) = management.ready_workers("tiny")
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: not server.healthy())
        wait_for(lambda: ready() == (503, ["tiny/1.2"]))
        assert http.get("/ping").json()["status"] == "Healthy" and http.get("/live").status_code == 200
        wait_for(server.healthy)
        wait_for(lambda: ready() == (200, []))
    assert management.ready_workers("tiny") != [worker]
    assert client.stylize(photo, "tiny")


@pytest.mark.serves
def test_a_model_that_fails_to_load_is_told_and_nothing_is_left(model_store, tmp_path):
    altered(model_store / "tiny.mar", tmp_path / "broken.mar", {"tiny.safetensors": b"junk"}, modelName="broken")
    server = Server(tmp_path, port=0)
    reason = "WeightsError: .* is not a safetensors file"
    with pytest.raises(ServerError, match=f"broken fails to load: .*{reason}") as caught:
        server.start()
    assert group_members(server.address.pid) == []
    assert str(server.folder / "logs") in str(caught.value)
    assert "Traceback" in (server.folder / "logs" / "model_log.log").read_text()
    assert not (server.folder / "key_file.json").exists()
    shutil.rmtree(server.folder)


@pytest.mark.serves
def test_archives_that_fail_do_not_keep_the_others_away_if_told_so(model_store, photo, tmp_path):
    shutil.copy(model_store / "tiny.mar", tmp_path)
    handler = {"style_transfer.py": b"import not_there"}
    altered(model_store / "tiny.mar", tmp_path / "broken.mar", handler, modelName="broken")
    (tmp_path / "bad.mar").write_bytes(b"junk")
    passed_over = []
    with Server(tmp_path, port=0, on_skip=passed_over.append) as server, server.address.inference() as client:
        assert client.stylize(photo, "tiny")
        damaged, failed = passed_over
        reply = client.request("GET", "/ready")
        assert (reply.status_code, reply.json()["missing"]) == (503, ["bad", "broken/1.2"])
        assert "bad.mar is not a model archive" in damaged
        assert "broken fails to load: " in failed and "ModuleNotFoundError: No module named 'not_there'" in failed
        (tmp_path / "bad.mar").unlink()
        (tmp_path / "broken.mar").write_bytes(b"junk")
        server.restart()
        wait_for(server.healthy)
        assert client.stylize(photo, "tiny")
    assert "broken.mar is not a model archive" in passed_over[2] and len(passed_over) == 3
    shutil.rmtree(server.folder)


@pytest.mark.serves
def test_sigterm_leaves_nothing_behind(model_store, photo, tmp_path):
    program = textwrap.dedent(f"""
        from perceptual.serving.server import Server
        started = Server({str(model_store)!r}, ["tiny"], port=0).start()
        with started as server:
            print(server.address.pid, server.folder, server.address.announce(server.ports.inference), flush=True)
            server.wait()
    """)
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        group, folder, state = process.stdout.readline().split()
        members = group_members(int(group))
        assert len(members) >= 3  # launcher, Java and a worker
        process.terminate()
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert group_members(int(group)) == []
    assert not any(psutil.pid_exists(member) and psutil.Process(member).status() != "zombie" for member in members)
    assert not Path(folder).exists()
    assert not Path(state).exists()


@pytest.mark.serves
def test_an_end_by_itself_is_told(model_store):
    with Server(model_store, [], port=0) as server:
        for process in psutil.Process(server.address.pid).children():
            process.kill()
        server.process.wait()
        refused = "org.pytorch.serve.ModelException: Cannot remove default version\n\tat org.pytorch.serve\n"
        server.logs.console.write_text(f"{refused}Model server started.\n")
        with pytest.raises(ServerError, match=f"TorchServe stopped: it printed no reason; .*{server.folder}/logs"):
            server.wait()
        assert not server.healthy()
    assert (server.logs.folder / "ts_log.log").exists()
    shutil.rmtree(server.folder)


@pytest.mark.serves
def test_a_busy_port_is_told(model_store):
    with socket.socket() as other:
        first = free_port()
        port = first + 2
        other.bind(("127.0.0.1", port))
        other.listen()
        for chosen in (first, port):
            with pytest.raises(ServerError, match=f"port {port} is in use.*--port 0"):
                Server(model_store, port=chosen).start()


@pytest.mark.serves
def test_a_damaged_archive_is_told(tmp_path):
    (tmp_path / "bad.mar").write_bytes(b"junk")
    with pytest.raises(ServerError, match=r"bad\.mar is not a model archive"):
        Server(tmp_path).start()


@pytest.mark.serves
def test_an_empty_model_store_is_told(tmp_path):
    with pytest.raises(ServerError, match="no archives"):
        Server(tmp_path).start()


@pytest.mark.serves
def test_more_models_than_memory_holds_are_told(model_store, monkeypatch):
    monkeypatch.setattr("perceptual.serving.preconditions.free_memory", lambda pid: 2**28)
    with pytest.raises(ServerError, match=r"1 workers need 0.5 GiB .* and 0.2 are free: name the models"):
        Server(model_store, ["tiny"], port=0).start()


@pytest.mark.serves
def test_missing_packages_are_told(model_store, monkeypatch):
    monkeypatch.setattr("perceptual.serving.preconditions.REQUIREMENTS", {"no_such_module": "PyYAML"})
    with pytest.raises(ServerError, match="pip install PyYAML"):
        Server(model_store).start()


@pytest.mark.serves
def test_a_temporary_folder_without_programs_is_told(model_store, monkeypatch):
    before = os.statvfs("/")
    told = os.statvfs_result([*before[:8], before.f_flag | os.ST_NOEXEC, *before[9:]])
    monkeypatch.setattr(os, "statvfs", lambda path: told)
    server = Server(model_store, port=0)
    with pytest.raises(ServerError, match=r"is mounted noexec.*TMPDIR"):
        server.start()
    assert not server.folder.exists()


@pytest.mark.serves
def test_a_bad_configuration_is_told(model_store):
    server = Server(model_store, port=0, overrides={"job_queue_size": "many"})
    with pytest.raises(ServerError, match="did not start: Invalid configuration"):
        server.start()
    shutil.rmtree(server.folder)
