import json
import re
import socket
import socketserver
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler

import pytest
import requests
from aiohttp.test_utils import make_mocked_request
from serving_fixtures import Http, running_front, wait_for

from perceptual.client.tokens import Tokens
from perceptual.errors import ServerError
from perceptual.serving.front import Front, access, bodies, connections, queues
from perceptual.serving.front.forms import MOST_FIELDS
from perceptual.serving.front.queues import prediction_path
from perceptual.serving.front.replies import RETRY_AFTER
from perceptual.serving.preconditions import reserve_ports

LARGEST = 100_000
DIED = b'{"code": 500, "type": "InternalServerException", "message": "Worker died."}'


class Behind(BaseHTTPRequestHandler):
    """Stands for TorchServe: answers with what it was asked, and does what the path says."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        inner = self.server.inner
        if self.path.startswith("/models/"):
            self.describe(inner)
            return
        inner.asked.append((self.command, self.path, self.headers, body))
        if self.path.startswith("/predictions/slow"):
            inner.free.wait(60)
        if self.path == "/dies":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if self.path.startswith("/predictions/quotes"):
            self.reply(404, b'{"code": 404, "error": "UnknownStyle", "message": "no style Worker died."}')
            return
        if self.path.startswith("/predictions/deadly") and inner.deaths:
            inner.deaths -= 1
            self.reply(500, DIED)
            return
        if not inner.workers and self.path.startswith("/predictions/"):
            self.reply(503, b'{"code": 503, "message": "Model m has no worker to serve inference request."}')
            return
        self.reply({"/full": 503, "/fails": 500}.get(self.path, 200), body)

    do_GET = do_PUT = do_DELETE = do_POST  # noqa: N815

    def describe(self, inner):
        inner.described.append(self.path)
        name = self.path.split("/")[2]
        known = [
            {
                "modelName": name,
                "modelVersion": "1",
                "modelUrl": f"{name}.mar",
                "minWorkers": inner.workers,
                "batchSize": 1,
                "maxBatchDelay": 100,
                "responseTimeout": inner.response_timeout,
                "deviceType": "cpu",
                "workers": [{"pid": 1, "status": "READY", "gpu": False, "memoryUsage": 0}] * inner.workers,
                "jobQueueStatus": {"pendingRequests": 0, "remainingCapacity": 10},
            }
        ]
        registered = name not in [path.split("/")[2] for path in inner.removed]
        if self.command == "DELETE":
            inner.removed.append(self.path)
        self.reply(200 if registered else 404, json.dumps(known).encode())

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("X-Kept", "as it is")
        self.send_header("Keep-Alive", "timeout=1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/breaks-off":
            self.wfile.write(body[:10])
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Listener(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128  # connections that wait to be accepted; TorchServe takes more

    def handle_error(self, *arguments):
        pass  # the client has gone


class Torchserve:
    """What stands for TorchServe has been ``asked``, and does."""

    def __init__(self, folder):
        self.folder = folder
        self.asked, self.described, self.removed, self.free = [], [], [], threading.Event()
        self.workers, self.deaths, self.response_timeout = 1, 0, 600
        self.listeners = []

    def predictions(self):
        return [body for _, path, _, body in self.asked if path.startswith("/predictions/")]

    def __enter__(self):
        keys = {kind: {"key": f"inner-{kind}"} for kind in access.KINDS}
        (self.folder / "key_file.json").write_text(json.dumps(keys))
        for api in ("inference", "management"):
            listener = Listener(str(self.folder / f"{api}.sock"), Behind)
            listener.inner = self
            threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
            self.listeners.append(listener)
        return self

    def __exit__(self, *exception):
        self.free.set()
        for listener in self.listeners:
            listener.shutdown()
            listener.server_close()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "logs").mkdir()
    return tmp_path


@pytest.fixture
def torchserve(folder):
    with Torchserve(folder / "inner") as torchserve:
        yield torchserve


def running(folder, **options):
    return running_front(folder, **({"largest": LARGEST, "tokens": False} | options))


@pytest.fixture
def front(folder):
    with running(folder) as front:
        yield front


def inference_of(front):
    return f"http://127.0.0.1:{front.addresses[0]}"


def management_of(front):
    return f"http://127.0.0.1:{front.addresses[1]}"


@pytest.fixture
def client(front):
    with Http(inference_of(front), timeout=20) as client:
        yield client


@pytest.fixture
def manager(front):
    token = front.access.newest["management"]["key"]
    with Http(management_of(front), timeout=20) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


def refusals(front):
    text = Http(f"http://127.0.0.1:{front.addresses[2]}").get("/metrics").text
    return {
        reason: float(count) for reason, count in re.findall(r'perceptual_refused_total{Reason="(\w+)"} (\S+)', text)
    }


def journal(folder):
    return [json.loads(line) for line in (folder / "logs" / "requests.log").read_text().splitlines()]


def test_requests_and_replies_pass_as_they_are(client, torchserve):
    body = bytes(range(256)) * 300
    headers = {"X-Style": "étoile".encode(), "Content-Encoding": "br", "Connection": "keep-alive"}
    reply = client.post("/predictions/a%2Fb/1.0?x=%20y&z", data=body, headers=headers)
    ((command, asked, received, sent),) = torchserve.asked
    assert (command, asked, sent) == ("POST", "/predictions/a%2Fb/1.0?x=%20y&z", body)
    assert received["X-Style"].encode("latin-1") == "étoile".encode() and received["Content-Encoding"] == "br"
    assert "Content-Type" not in received and received["Authorization"] == "Bearer inner-inference"
    assert (reply.status_code, reply.content) == (200, body)
    assert reply.headers["x-kept"] == "as it is" and not {"keep-alive", "retry-after"} & reply.headers.keys()
    assert client.post("/in-pieces", data=iter([b"one, ", b"two"])).content == b"one, two"
    assert client.get("/ping").status_code == 200
    assert client.put("/predictions/m", data=body).content == body


def ask_as_written(port, method, path, headers=()):
    """Status and JSON for a path that a client would change: requests resolves dots."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, headers=dict(headers))
    with connection.getresponse() as reply:
        return reply.status, json.loads(reply.read() or b"null")


@pytest.mark.parametrize(
    "path",
    [
        "/predictions/m/1.0/../../../ping",
        "/predictions/m/./1.0",
        "/predictions/m/1.0/..",
        "/predictions/m/%2e%2E/ping",
        "/predictions/m/.%2e/ping",
        "/predictions/m%2F..%2fping",
        "/predictions/m%5C..%5cping",
        "/predictions/m/%C3%2F..%2Fping",
        "//predictions/m/..//ping",
        "http://elsewhere/predictions/m/../ping",
    ],
)
def test_a_path_with_dots_for_a_part_is_a_bad_request(front, torchserve, path):
    token = {"Authorization": f"Bearer {front.access.newest['management']['key']}"}
    for port in front.addresses:
        status, told = ask_as_written(port, "POST", path, token)
        assert (status, told["code"], told["type"]) == (400, 400, "BadRequestException")
        assert told["message"].startswith("a part of the path is '.' or '..'")
    assert not torchserve.asked and not torchserve.described and refusals(front) == {"path": 3}


@pytest.mark.parametrize(
    "path", ["/predictions/m..n/1..0", "/predictions/.m/1.", "/predictions/...", "/predictions/m?x=/../y"]
)
def test_other_dots_in_a_path_pass(front, torchserve, path):
    assert ask_as_written(front.addresses[0], "POST", path)[0] == 200
    assert torchserve.asked[-1][1] == path


def test_large_bodies_pass_by_way_of_a_file(folder, torchserve):
    body = bytes(range(256)) * 2**13  # 2 MiB
    assert len(body) > bodies.IN_MEMORY
    with running(folder, largest=2**22) as front:
        assert Http(inference_of(front)).post("/predictions/m", data=body).content == body
        assert front.bodies.held == 0


@pytest.mark.parametrize("size", [0, 1, bodies.IN_MEMORY - 1, bodies.IN_MEMORY, bodies.PIECE + 1, 3 * bodies.PIECE + 7])
def test_a_form_with_a_photo_of_any_size_passes(folder, torchserve, size):
    photo = (bytes(range(256)) * (1 + size // 256))[:size]
    with running(folder, largest=2**21) as front:
        reply = Http(inference_of(front)).post("/predictions/m", files={"data": photo}, data={"strength": "0.5"})
    assert reply.status_code == 200 and photo in reply.content and b'name="strength"' in reply.content


def test_a_fault_of_the_front_is_a_reply_a_count_and_a_line_in_both_logs(
    client, front, folder, torchserve, monkeypatch, caplog
):
    monkeypatch.setattr(front.inference.queues, "turn", lambda path: 1 / 0)
    reply = client.post("/predictions/slow", data=b"photo", headers={"Authorization": "Bearer secret"})
    assert (reply.status_code, reply.json()["message"]) == (500, "a fault of this server, which its log describes")
    assert refusals(front) == {"internal": 1}
    assert journal(folder)[-1]["status"] == 500 and journal(folder)[-1]["refused"] == "internal"
    assert "ZeroDivisionError" in caplog.text and reply.headers["X-Request-ID"] in caplog.text
    assert "secret" not in caplog.text


def test_a_503_of_torchserve_says_when_to_try_again(client, torchserve):
    reply = client.post("/full", data=b"photo")
    assert (reply.status_code, reply.content, reply.headers["retry-after"]) == (503, b"photo", str(RETRY_AFTER))
    reply = client.post("/full", data=b'Model "tiny" Version 1.0 has no worker to serve inference request.')
    assert (reply.status_code, reply.headers["retry-after"]) == (503, str(RETRY_AFTER))
    assert reply.json()["message"] == "the queue of this model is full, or it has no workers"


def test_a_paused_model_is_told_from_one_that_is_held_back_and_from_a_full_queue(client, front, folder, torchserve):
    torchserve.workers = 0
    reply = client.post("/predictions/m", data=b"photo")
    assert (reply.status_code, reply.json()["error"]) == (503, "ModelPaused")
    assert "perceptual models scale m --version 1 --workers 1" in reply.json()["detail"]
    assert reply.headers["retry-after"] == str(RETRY_AFTER)
    assert refusals(front) == {"paused": 1} and journal(folder)[-1]["refused"] == "paused"
    front.health.held = ["m/1"]
    front.refuse("/predictions/m", 40)
    reply = client.post("/predictions/m", data=b"photo")
    assert (reply.status_code, reply.json()["message"]) == (503, "the workers of this model keep dying")
    assert 38 <= int(reply.headers["retry-after"]) <= 40
    assert refusals(front) == {"paused": 1, "held": 1}


def test_a_form_that_torchserve_cannot_read_is_a_bad_request(client, torchserve):
    for kind in ("ErrorDataDecoderException", "NullPointerException"):
        reply = client.post("/fails", data=f'{{"code": 500, "type": "{kind}"}}')
        assert (reply.status_code, reply.json()["error"]) == (400, "InvalidImage")
    reply = client.post("/fails", data=b'{"code": 500, "type": "InternalServerException"}')
    assert reply.status_code == 500 and b"InternalServerException" in reply.content
    client.post("/predictions/tiny", data=b"photo", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert torchserve.asked[-1][2]["Content-Type"] == "application/octet-stream"


def field(name):
    return f'--xx\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n1\r\n'.encode()


def form_of(*names):
    return b"".join(map(field, names)) + b"--xx--\r\n"


@pytest.mark.parametrize(
    "kind", ["Multipart/Form-Data; boundary=xx", 'multipart/form-data;charset=utf-8; BOUNDARY="xx"']
)
@pytest.mark.parametrize("before", [b"", b"a preamble\r\n", b"\r\n"])
def test_forms_reach_torchserve_as_it_can_parse_them(client, torchserve, kind, before):
    form = form_of("a", "b")
    assert client.post("/predictions/m", data=before + form, headers={"Content-Type": kind}).content == form
    assert torchserve.asked[-1][2]["Content-Type"] == 'multipart/form-data; boundary="xx"'


@pytest.mark.parametrize("boundary", ["", "; boundary=", '; boundary="', '; boundary=""', "; boundary=yy"])
def test_a_form_without_its_boundary_is_a_bad_request(client, torchserve, boundary):
    headers = {"Content-Type": f"multipart/form-data{boundary}"}
    reply = client.post("/predictions/m", data=form_of("a"), headers=headers)
    assert (reply.status_code, reply.json()["error"]) == (400, "InvalidImage")
    assert not torchserve.asked


def test_a_form_has_so_many_fields(folder, torchserve):
    headers = {"Content-Type": "multipart/form-data; boundary=xx"}
    with running(folder, largest=2**24) as front:
        for fields, status in ((MOST_FIELDS, 200), (MOST_FIELDS + 1, 400), (100_000, 400)):
            begin = time.monotonic()
            reply = Http(inference_of(front)).post("/predictions/m", data=form_of(*range(fields)), headers=headers)
            assert reply.status_code == status and time.monotonic() - begin < 5, fields


@pytest.mark.parametrize("before", [b"", b"a preamble\r\n"])
def test_a_field_that_comes_twice_is_a_bad_request(client, torchserve, before):
    """Of two photos, TorchServe would pass over one without a word."""
    headers = {"Content-Type": "multipart/form-data; boundary=xx"}
    reply = client.post("/predictions/m", data=before + form_of("data", "strength", "data"), headers=headers)
    assert (reply.status_code, reply.json()["error"]) == (400, "InvalidImage")
    assert "it has 2 fields with the name 'data'" in reply.json()["detail"]
    assert not torchserve.asked


def test_an_option_that_comes_twice_is_an_invalid_option(client, torchserve):
    headers = {"Content-Type": "multipart/form-data; boundary=xx"}
    reply = client.post("/predictions/m", data=form_of("data", "style", "style"), headers=headers)
    assert (reply.status_code, reply.json()["error"]) == (422, "InvalidOption")
    assert reply.json()["detail"] == "style: expected once, this form has it 2 times"
    assert not torchserve.asked


def test_without_torchserve_it_answers_itself(client, request):
    def refused(path, message):
        reply = client.post(path, data=b"photo")
        assert reply.status_code == 503 and reply.headers["retry-after"] == str(RETRY_AFTER)
        assert message in reply.json()["message"]

    refused("/predictions/tiny", "TorchServe is starting")
    request.getfixturevalue("torchserve")
    assert client.post("/predictions/tiny").status_code == 200
    refused("/dies", "TorchServe is starting again")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):  # too late to say anything else
        client.post("/breaks-off", data=b"photo" * 10)
    assert client.post("/predictions/tiny").status_code == 200


def test_a_request_of_which_a_worker_dies_is_tried_once_more(client, front, torchserve, folder, caplog):
    torchserve.deaths = 1
    reply = client.post("/predictions/deadly", data=b"\x89PNG photo", headers={"X-Request-ID": "the-suspect"})
    assert (reply.status_code, reply.content, reply.headers["x-request-id"]) == (200, b"\x89PNG photo", "the-suspect")
    assert "a worker of deadly died during request the-suspect" in caplog.text and "format=png" in caplog.text
    torchserve.deaths = 2
    reply = client.post("/predictions/deadly", data=b"photo", headers={"X-Request-ID": "the-killer"})
    assert (reply.status_code, reply.json()["error"]) == (500, "WorkerDied")
    assert "the-killer" in reply.json()["detail"] and "retry-after" not in reply.headers
    assert len(torchserve.predictions()) == 4
    begun = next(each for each in journal(folder) if each["event"] == "begin" and each["request_id"] == "the-suspect")
    assert (begun["bytes"], begun["format"]) == (10, "png")
    ends = {each["request_id"]: each for each in journal(folder) if each["event"] == "end"}
    assert (ends["the-killer"]["status"], ends["the-killer"]["refused"]) == (500, "worker_died")


def test_what_a_request_says_is_no_death(client, front, torchserve):
    reply = client.post("/predictions/quotes", data=b"photo")
    assert (reply.status_code, reply.json()["error"]) == (404, "UnknownStyle")
    assert len(torchserve.predictions()) == 1
    assert front.counters.deaths.collect()[0].samples == []


def test_a_request_that_took_too_long_is_not_tried_again(client, torchserve):
    torchserve.deaths, torchserve.response_timeout = 1, 0
    reply = client.post("/predictions/deadly", data=b"photo")
    assert (reply.status_code, reply.json()["error"]) == (500, "WorkerDied")
    assert len(torchserve.predictions()) == 1


def test_only_as_many_requests_go_on_as_workers_can_take(client, front, torchserve):
    """The others wait in the front, and leave with their clients."""
    working = [begun(front, "/predictions/slow", b"photo") for _ in range(2)]
    wait_for(lambda: len(torchserve.predictions()) == 2)
    waiting = [begun(front, "/predictions/slow", b"photo") for _ in range(9)]
    wait_for(lambda: "slow" in front.queues.by_model and len(front.queues.by_model["slow"].waiting) == 9)
    reply = client.post("/predictions/slow", data=b"photo")
    assert (reply.status_code, reply.json()["message"]) == (503, "the queue of this model is full")
    for each in waiting:
        each.close()
    wait_for(lambda: not front.queues.by_model["slow"].waiting)
    for each in working:
        each.close()
    wait_for(lambda: front.queues.by_model["slow"].empty)
    assert len(torchserve.predictions()) == 2 and front.bodies.held == 0
    torchserve.free.set()
    assert client.post("/predictions/slow", data=b"photo").status_code == 200
    assert refusals(front) == {"queue": 1}


def begun(front, path, body, length=None):
    """A connection on which a request was sent."""
    connection = socket.create_connection(("127.0.0.1", front.addresses[0]), timeout=20)
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length or len(body)}\r\n\r\n".encode())
    connection.sendall(body)
    return connection


def test_more_workers_take_more(client, front, torchserve, manager):
    torchserve.workers = 2
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(client.post, "/predictions/slow", data=b"photo") for _ in range(8)]
        wait_for(lambda: len(torchserve.predictions()) == 4)
        torchserve.workers = 4
        assert manager.put("/models/slow?min_worker=4").status_code == 200
        wait_for(lambda: len(torchserve.predictions()) == 8)
        torchserve.free.set()
        assert {each.result().status_code for each in asked} == {200}


def test_a_burst_of_first_requests_has_its_model_described_once(client, front, torchserve, monkeypatch):
    monkeypatch.setattr(queues, "FRESH", 60)  # seconds; a busy machine may need more than one for the burst
    torchserve.free.set()
    with ThreadPoolExecutor(10) as pool:
        replies = list(pool.map(lambda _: client.post("/predictions/slow", data=b"photo").status_code, range(10)))
    assert replies == [200] * 10 and torchserve.described == ["/models/slow"]


def test_a_model_is_removed_after_it_has_answered(client, front, torchserve, manager):
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(client.post, "/predictions/slow", data=b"photo") for _ in range(5)]
        wait_for(lambda: len(torchserve.predictions()) == 2)
        removal = pool.submit(manager.delete, "/models/slow")
        wait_for(lambda: front.queues.by_model["slow"].closed)
        late = client.post("/predictions/slow", data=b"photo")
        assert (late.status_code, late.json()["message"]) == (503, "slow is being unregistered")
        assert not torchserve.removed
        torchserve.free.set()
        assert {each.result().status_code for each in asked} == {200} and removal.result().status_code == 200
    assert torchserve.removed == ["/models/slow"] and not front.queues.by_model


def test_a_model_without_workers_is_removed_at_once(client, front, torchserve, manager):
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(client.post, "/predictions/slow", data=b"photo")
        wait_for(lambda: torchserve.predictions())
        torchserve.workers = 0
        assert manager.delete("/models/slow").status_code == 200
        assert waiting.result().status_code == 503


def test_what_waits_for_a_model_that_is_held_back_is_refused(client, front, torchserve):
    with ThreadPoolExecutor(4) as pool:
        paths = ("/predictions/slow", "/predictions/slow?x", "/predictions/slow/", "/predictions/slower")
        *refused, other = (pool.submit(client.post, path) for path in paths)
        wait_for(lambda: len(front.inference.waiting) == 4)
        front.refuse("/predictions/slow", 40)
        for reply in (each.result() for each in refused):
            assert reply.status_code == 503 and 38 <= int(reply.headers["retry-after"]) <= 40
        assert not other.done()
        torchserve.free.set()
        assert other.result().status_code == 200
    assert client.post("/predictions/slow").status_code == 200  # that one TorchServe answers


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/predictions/m", "m"),
        ("/predictions/m/1.0/", "m/1.0"),
        ("/predictions/m/1.0/more/still", "m/1.0"),
        ("/explanations/m", "m"),
        ("/models/m/invoke", "m"),
        ("/invocations?model_name=m", "m"),
        ("/m/predict", "m"),
        ("/m/1.0/predict", "m/1.0"),
        ("/v1/models/m:predict", "m"),
        ("/v2/models/m/infer", "m"),
    ],
)
def test_every_path_to_a_model_is_told_when_to_ask_again(front, path, model):
    front.refuse(f"/predictions/{model}", 40)
    request = make_mocked_request("POST", path)
    assert front.inference.retry_after(request) in (39, 40)
    front.readmit(f"/predictions/{model}")
    assert front.inference.retry_after(request) == RETRY_AFTER
    assert prediction_path(make_mocked_request("GET", "/ping")) == "/ping"


def test_tokens_are_checked_before_the_body_and_outlive_torchserve(folder):
    with running(folder, tokens=True) as front, Http(inference_of(front)) as client:
        key_file = folder / "key_file.json"
        assert key_file.stat().st_mode & 0o777 == 0o600
        tokens = Tokens(key_file, "inference", management_of(front))
        old = tokens.valid()
        for _ in range(2):  # a TorchServe, and another
            with Torchserve(folder / "inner") as torchserve:
                for wrong in ("", "Bearer", "Bearer x", f"Basic {old}", f"Bearer {old}x", f"Bearer x{old}", "Bearer é"):
                    reply = client.post("/predictions/m", data=b"photo", headers={"Authorization": wrong.encode()})
                    assert (reply.status_code, reply.json()["type"]) == (401, "InvalidKeyException"), wrong
                management_token = front.access.newest["management"]["key"]
                assert posted(client, management_token) == 401
                assert posted(client, old) == 200 and client.get("/ping").status_code == 200
                assert {received["Authorization"] for _, _, received, _ in torchserve.asked} == {
                    "Bearer inner-inference"
                }
            for listener in ("inference.sock", "management.sock"):
                (folder / "inner" / listener).unlink()
        with begun(front, "/predictions/m", b"", length=LARGEST) as connection:  # and not a byte of it
            assert b" 401 " in connection.recv(200)
        assert refusals(front)["token"] == 2 * 8 + 1
        assert not any("body_timeout" in each.get("refused", "") for each in journal(folder))
        assert old not in (folder / "logs" / "requests.log").read_text()


def posted(client, token):
    return client.post("/predictions/m", data=b"photo", headers={"Authorization": f"Bearer {token}"}).status_code


def test_tokens_that_are_renewed_at_once_are_all_good(folder, torchserve, monkeypatch):
    with running(folder, tokens=True) as front, Http(inference_of(front)) as client:
        monkeypatch.setattr("perceptual.client.tokens.RENEW_WITHIN", access.LIFETIME + 5.0)

        def renewed(_):
            return Tokens(folder / "key_file.json", "inference", management_of(front)).valid()

        with ThreadPoolExecutor(8) as pool:
            tokens = list(pool.map(renewed, range(24)))
        assert {posted(client, token) for token in tokens} == {200}
        wrong = Http(management_of(front)).get("/token?type=inference")
        assert wrong.status_code == 401


def test_a_token_is_good_for_an_hour(folder, torchserve, monkeypatch):
    with running(folder, tokens=True) as front, Http(inference_of(front)) as client:
        token = front.access.newest["inference"]["key"]
        now = time.time()
        monkeypatch.setattr(access.time, "time", lambda: now + access.LIFETIME - 60)
        assert posted(client, token) == 200
        monkeypatch.setattr(access.time, "time", lambda: now + access.LIFETIME + 1)
        assert posted(client, token) == 401


def test_a_client_that_goes_leaves_nothing_behind(client, front, torchserve):
    with pytest.raises(requests.ReadTimeout):
        client.post("/predictions/slow", timeout=0.5)
    wait_for(lambda: not front.inference.waiting and not front.connections.busy)
    assert client.get("/ping").status_code == 200


def test_a_client_that_goes_in_the_middle_of_its_upload_is_one_line(front, torchserve, folder, caplog):
    begun(front, "/predictions/any", b"a part", length=LARGEST).close()
    wait_for((folder / "logs" / "requests.log").exists)
    wait_for(lambda: [each["event"] for each in journal(folder)][-1:] == ["end"])
    assert journal(folder)[-1]["status"] == 499 and not torchserve.predictions() and "Error" not in caplog.text
    wait_for(lambda: not front.connections.busy)


def refuses(address):
    try:
        Http(address).get("/ping", timeout=1)
    except requests.ConnectionError:
        return True
    except requests.Timeout:  # it came just before the end
        pass
    return False


def test_requests_under_way_are_answered_before_the_end(folder, torchserve):
    with ThreadPoolExecutor(3) as pool, running(folder) as front:
        asked = [pool.submit(Http(inference_of(front)).post, "/predictions/slow") for _ in range(2)]
        wait_for(lambda: len(torchserve.predictions()) == 2)
        end = pool.submit(front.stop)
        wait_for(lambda: refuses(inference_of(front)))
        assert not end.done()
        torchserve.free.set()
        assert [each.result().status_code for each in asked] == [200, 200]
        end.result()
        front.stop = lambda: None


def test_the_end_does_not_wait_for_ever(folder, torchserve):
    with ThreadPoolExecutor(1) as pool:
        with running(folder, drain=0.1) as front:
            waiting = pool.submit(Http(inference_of(front)).post, "/predictions/slow", timeout=10)
            wait_for(lambda: front.inference.waiting)
            begin = time.monotonic()
        assert time.monotonic() - begin < 3
        with pytest.raises(requests.ConnectionError):
            waiting.result()


def test_what_is_too_large_never_reaches_torchserve(client, manager, front, torchserve):
    for body in (bytes(LARGEST + 1), iter([bytes(LARGEST), b"1"])):
        assert client.post("/predictions/tiny", data=body).status_code == 413
    assert manager.post("/models", data=bytes(LARGEST + 1)).status_code == 413
    assert [expecting(front, length) for length in (2**28, LARGEST)] == [b"413", b"100"]
    assert not torchserve.asked
    assert client.post("/predictions/tiny", data=bytes(LARGEST)).status_code == 200


def expecting(front, length):
    """The status of the answer to a client that asks whether to send a body."""
    with socket.create_connection(("127.0.0.1", front.addresses[0]), timeout=10) as connection:
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        return connection.recv(200).split()[1]


def test_all_bodies_together_have_a_limit(client, front, torchserve):
    unfinished = [begun(front, "/predictions/m", bytes(LARGEST - 1), length=LARGEST) for _ in range(8)]
    wait_for(lambda: front.bodies.held == 8 * (LARGEST - 1))
    reply = client.post("/predictions/m", data=bytes(1000))
    assert reply.status_code == 503 and reply.headers["retry-after"] == str(RETRY_AFTER)
    for each in unfinished:
        each.close()
    wait_for(lambda: front.bodies.held == 0)
    assert client.post("/predictions/m", data=bytes(1000)).status_code == 200
    assert refusals(front)["bodies"] == 1


def test_a_body_that_comes_too_slowly_is_given_up(front, torchserve, monkeypatch):
    monkeypatch.setattr(bodies, "PATIENCE", 3.0)
    with begun(front, "/predictions/m", b"half", length=100) as connection:
        for _ in range(3):  # a byte now and then does not help
            time.sleep(0.3)
            connection.sendall(b"x")
        assert b" 408 " in connection.recv(200)
    assert not torchserve.asked and refusals(front) == {"body_timeout": 1}


def test_headers_that_do_not_come_to_an_end_are_given_up(folder, torchserve, monkeypatch):
    monkeypatch.setattr("perceptual.serving.front.IDLE", 1.0)
    with running(folder) as front, socket.create_connection(("127.0.0.1", front.addresses[0]), timeout=10) as slow:
        slow.sendall(b"POST /predictions/m HTTP/1.1\r\nHost: x\r\n")
        assert ended(slow, within=5, sending=b"X-A: 1\r\n")


def ended(connection, within, sending=b""):
    """Whether the other side closes a connection, though something is sent on it now and then."""
    connection.settimeout(0.2)
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            connection.sendall(sending)
            if not connection.recv(2**16):
                return True
        except TimeoutError:
            pass
        except OSError:
            return True
    return False


def test_a_reply_that_nobody_reads_is_given_up(folder, torchserve, monkeypatch):
    monkeypatch.setattr(connections, "WRITE", 1.0)
    with running(folder, largest=2**26) as front:
        with begun(front, "/predictions/m", bytes(2**25)):
            wait_for(lambda: refusals(front) == {"write_timeout": 1}, seconds=20)
        wait_for(lambda: not front.connections.busy)


def test_a_thread_that_hangs_is_noticed(front, monkeypatch):
    monkeypatch.setattr("perceptual.serving.front.RESPONSE", 0.2)
    assert front.responds()
    front.loop.call_soon_threadsafe(time.sleep, 1)
    assert not front.responds()
    wait_for(front.responds)


def test_headers_have_a_limit(client, front, torchserve):
    assert client.post("/predictions/m", headers={f"X-{number}": "1" for number in range(200)}).status_code == 400
    assert client.post("/predictions/m", headers={"X-Long": "x" * 20_000}).status_code == 400
    assert client.post("/predictions/m", headers={"X-Long": "x" * 12_000}).status_code == 200


def test_connections_have_a_limit_at_which_the_idle_ones_make_room(client, front, torchserve):
    front.connections.most = 50
    idle = [socket.create_connection(("127.0.0.1", front.addresses[0]), timeout=10) for _ in range(200)]
    assert client.get("/ping").status_code == 200
    wait_for(lambda: len(front.connections.idle) <= 50)
    for each in idle:
        each.close()
    front.connections.most = 2
    busy = [begun(front, "/predictions/slow", b"photo") for _ in range(2)]
    wait_for(lambda: len(front.connections.busy) == 2)
    with socket.create_connection(("127.0.0.1", front.addresses[0]), timeout=10) as more:
        reply = more.recv(1000)
        assert b" 503 " in reply and b"Retry-After: 5" in reply
    torchserve.free.set()
    for each in busy:
        assert b" 200 " in each.recv(1000)
        each.close()


def test_a_malformed_request_is_one_line_in_the_log_without_its_secrets(front, torchserve, caplog):
    for head in (
        b"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nbad line\r\n\r\n",
        b"\x16\x03secret\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", front.addresses[0]), timeout=10) as connection:
            connection.sendall(head)
            assert b" 400 " in connection.recv(1000)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("perceptual.")]
    assert told and all("malformed request" in line and "\n" not in line for line in told)
    assert "secret" not in caplog.text
    assert refusals(front) == {"malformed": 2}


def test_a_request_keeps_its_identity(client, torchserve, folder):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"X-Request-ID": "mine", "traceparent": trace, "X-Client": "tester"}
    assert client.post("/predictions/m", data=b"x", headers=headers).headers["x-request-id"] == "mine"
    received = torchserve.asked[-1][2]
    assert (received["X-Request-ID"], received["traceparent"]) == ("mine", trace)
    line = journal(folder)[-1]
    assert (line["request_id"], line["trace_id"], line["client"]) == ("mine", trace[3:35], "tester")
    for odd in ("", "with space", "x" * 200, '"'):
        reply = client.post("/predictions/m", data=b"x", headers={"X-Request-ID": odd})
        assert re.fullmatch("[0-9a-f]{32}", reply.headers["x-request-id"])


def test_waiting_is_counted_from_the_front_s_own_clock(client, torchserve):
    begin = time.time()
    for forged in ({}, {"X-Request-Start": f"t={begin - 3600:.3f}"}, {"x-request-start": "soon"}):
        assert client.post("/predictions/m", data=b"x", headers=forged).status_code == 200
        (told,) = torchserve.asked[-1][2].get_all("X-Request-Start")
        assert begin - 1 < float(re.fullmatch(r"t=(\d+\.\d+)", told)[1]) < begin + 60


def test_a_port_that_is_taken_is_told(folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        front = Front(port, 0, 0, torchserve=folder, folder=folder, largest=LARGEST)
        with pytest.raises(ServerError, match=f"cannot listen at {port}: .*in use"):
            front.start()


def test_sockets_are_for_their_users(folder, torchserve):
    paths = folder / "inference.sock", folder / "management.sock"
    options = {"torchserve": folder / "inner", "folder": folder, "largest": LARGEST}
    front = Front(*paths, reserve_ports(0)[2], **options)
    front.start()
    try:
        assert [path.stat().st_mode & 0o777 for path in paths] == [0o660, 0o600]
    finally:
        front.stop()
    assert not any(path.exists() for path in paths)
