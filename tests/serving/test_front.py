import socket
import socketserver
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler

import pytest
import requests
from aiohttp.test_utils import make_mocked_request
from serving_fixtures import Http

from perceptual.errors import ServerError
from perceptual.serving.front import RETRY_AFTER, Front, asked_for
from perceptual.serving.server import reserve_ports

LARGEST = 100_000


class Behind(BaseHTTPRequestHandler):
    """Stands for TorchServe: answers with what it was asked, and does what the path says."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.asked.append((self.command, self.path, self.headers, body))
        if self.path.startswith("/predictions/slow"):
            self.server.free.wait(10)
        if self.path == "/dies":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response({"/full": 503, "/fails": 500}.get(self.path, 200))
        self.send_header("X-Kept", "as it is")
        self.send_header("Keep-Alive", "timeout=1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/breaks-off":
            self.wfile.write(body[:10])
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815

    def log_message(self, *arguments):
        pass


class Torchserve(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def handle_error(self, *arguments):
        pass  # the client has gone


@pytest.fixture
def path(tmp_path):
    return tmp_path / "torchserve.sock"


@pytest.fixture
def torchserve(path):
    with Torchserve(str(path), Behind) as server:
        server.asked, server.free = [], threading.Event()
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.free.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def front(path):
    front = Front(reserve_ports(0)[0], path, LARGEST)
    front.start()
    yield front
    front.stop()


@pytest.fixture
def client(front):
    with Http(f"http://127.0.0.1:{front.at}", timeout=10) as client:
        yield client


def test_requests_and_replies_pass_as_they_are(client, torchserve):
    body = bytes(range(256)) * 300
    headers = {"X-Style": "étoile".encode(), "Content-Encoding": "br", "Connection": "keep-alive"}
    reply = client.post("/predictions/a%2Fb/1.0?x=%20y&z", data=body, headers=headers)
    ((command, asked, received, sent),) = torchserve.asked
    assert (command, asked, sent) == ("POST", "/predictions/a%2Fb/1.0?x=%20y&z", body)
    assert received["X-Style"].encode("latin-1") == "étoile".encode() and received["Content-Encoding"] == "br"
    assert "Content-Type" not in received and "Connection" not in received
    assert (reply.status_code, reply.content) == (200, body)
    assert reply.headers["x-kept"] == "as it is"
    assert "keep-alive" not in reply.headers and "retry-after" not in reply.headers
    assert client.post("/in-pieces", data=iter([b"one, ", b"two"])).content == b"one, two"
    assert client.get("/ping").status_code == 200


def test_a_503_of_torchserve_says_when_to_try_again(client, torchserve):
    reply = client.post("/full", data=b"photo")
    assert (reply.status_code, reply.content, reply.headers["retry-after"]) == (503, b"photo", str(RETRY_AFTER))
    reply = client.post("/full", data=b'Model "tiny" Version 1.0 has no worker to serve inference request.')
    assert (reply.status_code, reply.headers["retry-after"]) == (503, str(RETRY_AFTER))
    assert reply.json()["message"] == "the queue of this model is full, or it has no workers"


def test_a_form_that_torchserve_cannot_read_is_a_bad_request(client, torchserve):
    for kind in ("ErrorDataDecoderException", "NullPointerException"):
        reply = client.post("/fails", data=f'{{"code": 500, "type": "{kind}"}}')
        assert (reply.status_code, reply.json()["error"]) == (400, "InvalidImage")
    reply = client.post("/fails", data=b'{"code": 500, "type": "InternalServerException"}')
    assert reply.status_code == 500 and b"InternalServerException" in reply.content
    client.post("/predictions/tiny", data=b"photo", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert torchserve.asked[-1][2]["Content-Type"] == "application/octet-stream"


def test_without_torchserve_it_answers_itself(client, request):
    def refused(path):
        reply = client.post(path, data=b"photo")
        assert reply.status_code == 503 and reply.headers["retry-after"] == str(RETRY_AFTER)
        assert reply.json()["message"] == "TorchServe is starting again"

    refused("/predictions/tiny")
    request.getfixturevalue("torchserve")
    assert client.post("/predictions/tiny").status_code == 200
    refused("/dies")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):  # too late to say anything else
        client.post("/breaks-off", data=b"photo" * 10)
    assert client.post("/predictions/tiny").status_code == 200


def test_what_waits_for_a_model_that_is_held_back_is_refused(client, front, torchserve):
    with ThreadPoolExecutor(4) as pool:
        paths = ("/predictions/slow", "/predictions/slow?x", "/predictions/slow/", "/predictions/slower")
        *refused, other = (pool.submit(client.post, path) for path in paths)
        while len(torchserve.asked) < 4:
            time.sleep(0.01)
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
    assert front.retry_after(request) in (39, 40)
    front.welcome(f"/predictions/{model}")
    assert front.retry_after(request) == RETRY_AFTER
    assert asked_for(make_mocked_request("GET", "/ping")) == "/ping"


def test_a_client_that_goes_leaves_nothing_behind(client, front, torchserve):
    with pytest.raises(requests.ReadTimeout):
        client.post("/predictions/slow", timeout=0.5)
    while front.waiting:
        time.sleep(0.01)
    assert client.get("/ping").status_code == 200


def test_the_end_does_not_wait_for_torchserve(path, torchserve, monkeypatch):
    monkeypatch.setattr("perceptual.serving.front.GRACE", 0.1)
    front = Front(reserve_ports(0)[0], path, LARGEST)
    front.start()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(Http(f"http://127.0.0.1:{front.at}", timeout=10).post, "/predictions/slow")
        while not front.waiting:
            time.sleep(0.01)
        begin = time.monotonic()
        front.stop()
        assert time.monotonic() - begin < 3
        with pytest.raises(requests.ConnectionError):
            waiting.result()


def test_what_is_too_large_never_reaches_torchserve(client, front, torchserve):
    for body in (bytes(LARGEST + 1), iter([bytes(LARGEST), b"1"])):
        assert client.post("/predictions/tiny", data=body).status_code == 413
    assert [expecting(front, length) for length in (2**28, LARGEST)] == [b"413", b"100"]
    assert not torchserve.asked
    assert client.post("/predictions/tiny", data=bytes(LARGEST)).status_code == 200


def expecting(front, length):
    """The status of the answer to a client that asks whether to send a body."""
    with socket.create_connection(("127.0.0.1", front.at), timeout=10) as connection:
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        return connection.recv(200).split()[1]


def test_a_port_that_is_taken_is_told(path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"cannot listen at {port}: .*in use"):
            Front(port, path, LARGEST).start()
