import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager
from http.server import HTTPServer, SimpleHTTPRequestHandler

import pytest
import requests

from perceptual.client.connection import Client
from perceptual.client.inference import InferenceClient
from perceptual.client.management import ManagementClient
from perceptual.errors import (
    AlreadyRegistered,
    ImageTooLarge,
    InputError,
    InternalError,
    InvalidOption,
    ServerError,
    WorkerDied,
    WorkersFailed,
)


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (413, {"error": "ImageTooLarge", "detail": "48 megapixels"}, ImageTooLarge, "^48 megapixels$"),
        (500, {"error": "InternalError", "detail": "failed"}, InternalError, "^failed$"),
        (500, {"error": "WorkerDied", "detail": "two died"}, WorkerDied, "^two died$"),
        (400, {"type": "InvalidKeyException", "message": "Token"}, ServerError, "valid token"),
        (
            404,
            {"type": "ModelNotFoundException", "message": "Model not found: x"},
            ServerError,
            "x; perceptual models",
        ),
        (405, {"message": "Requested method is not allowed"}, ServerError, "enable_model_api=true"),
        (409, {"message": "Model x is already registered"}, AlreadyRegistered, "unregister it first"),
        (413, {}, InputError, "max_request_size"),
        (500, {"message": "Failed to start workers for model x version: 1.0"}, WorkersFailed, "x version: 1.0; the"),
        (503, {"message": "no worker"}, ServerError, "no worker; its workers are busy or down"),
        (507, {"message": "Worker died."}, ServerError, "smaller picture"),
        (502, b"<html>", ServerError, "HTTP 502 Bad Gateway"),
        (500, b"[1]", ServerError, "HTTP 500"),
    ],
)
def test_replies_become_errors(replies, status, body, kind, message):
    with Client("http://i") as client:
        client.session.mount("http://", replies(lambda request: (status, body)))
        with pytest.raises(kind, match=message) as caught:
            client.send("GET", "/ping")
        assert caught.type is kind


@contextmanager
def listening(family, address, reply):
    """Listens for one connection, reads the request, and sends a reply, or nothing for three seconds if it is None."""
    end = threading.Event()
    with socket.socket(family) as server:
        server.bind(address)
        server.listen()

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                end.wait(3) if reply is None else connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()
        end.set()
        thread.join()


@pytest.fixture(params=["port", "socket"])
def listen(request, tmp_path):
    """Listens as above; gives the URL."""

    @contextmanager
    def listen(reply):
        if request.param == "port":
            with listening(socket.AF_INET, ("127.0.0.1", 0), reply) as (_, port):
                yield f"http://127.0.0.1:{port}"
        else:
            path = str(tmp_path / "x.sock")
            with listening(socket.AF_UNIX, path, reply):
                yield f"unix:{path}"

    return listen


def test_a_reply_comes_from_a_port_or_a_socket(listen):
    with listen(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi") as url, Client(url) as client:
        assert client.send("GET", "/ping").text == "hi"


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (None, "no answer from .* within 0.2 s"),
        (b"", "the connection to .* broke"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", "the connection to .* broke"),
    ],
)
def test_a_server_that_does_not_answer_whole(listen, reply, message):
    with listen(reply) as url, Client(url, timeout=0.2) as client, pytest.raises(ServerError, match=message):
        client.send("GET", "/ping")


@pytest.mark.parametrize("kind", ["http", "unix"])
def test_nobody_listens(tmp_path, kind):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # without listen()
        url = f"http://127.0.0.1:{taken.getsockname()[1]}" if kind == "http" else f"unix:{tmp_path}/x.sock"
        with Client(url) as client, pytest.raises(ServerError, match=f"no server answers at {url}; start one"):
            client.send("GET", "/ping")


def test_a_server_that_does_not_take_the_connection(replies):
    def late(request):
        raise requests.ConnectTimeout

    with Client("http://i") as client:
        client.session.mount("http://", replies(late))
        with pytest.raises(ServerError, match="no server answers at http://i; start one"):
            client.send("GET", "/ping")


def test_a_redirection_is_not_followed(replies):
    with Client("http://i") as client:
        client.session.mount("http://", replies(lambda request: (302, {})))
        with pytest.raises(ServerError, match="HTTP 302"):
            client.send("POST", "/predictions/tiny")


@pytest.mark.parametrize("key", ["ключ", "a\nb", "a\x00"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_shown(key):
    with pytest.raises(InvalidOption, match="^the key has other than printable ASCII characters$"):
        Client("http://i", key)


@pytest.mark.parametrize("kind", [InferenceClient, ManagementClient])
@pytest.mark.parametrize("url", ["127.0.0.1:9500", "ftp://x", "http://", "https://:80", "http://h:many", ""])
def test_an_address_is_of_http_and_has_a_host(kind, url):
    with pytest.raises(InputError) as refused:
        kind(url)
    assert str(refused.value) == (
        f"expected an address such as {kind.example}, got {url!r}: "
        "an address begins with http:// or https://, and a host follows"
    )


@pytest.mark.parametrize(
    ("url", "alone"),
    [
        ("http://h:9500/predictions/styles", "http://h:9500"),
        ("https://predictions/a/predictions/styles/1.0/?x=1", "https://predictions/a"),
    ],
)
def test_the_address_of_a_model_is_not_that_of_the_api(url, alone):
    with pytest.raises(InputError, match=f"^expected the inference address alone, such as {alone}, got '"):
        InferenceClient(url)
    InferenceClient(f"{alone}/").close()
    InferenceClient("unix:/run/predictions/inference.sock").close()


def test_each_api_has_its_own_advice_about_tokens(replies):
    told = {}
    for kind in (InferenceClient, ManagementClient):
        with kind("http://i") as client:
            client.session.mount("http://", replies(lambda request: (401, {"type": "InvalidKeyException"})))
            with pytest.raises(ServerError, match="requires a valid token") as caught:
                client.send("POST", "/predictions/styles")
            told[kind] = str(caught.value)
    assert "--key-file" not in told[InferenceClient] and "inference address alone" in told[InferenceClient]
    assert "its management address and its key file (--key-file" in told[ManagementClient]


@pytest.fixture
def private(tmp_path):
    """The URL of a server with its own certificate, and that certificate's file."""
    key, certificate = tmp_path / "tls.key", tmp_path / "tls.crt"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}", certificate
        server.shutdown()
        thread.join()


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_a_private_certificate_needs_its_authority_s_file(private, tmp_path, monkeypatch):
    url, certificate = private
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with Client(url) as client:
        assert client.request("HEAD", "/").status_code == 200
    for name, message in (("", "certificate verify failed"), (str(tmp_path / "missing.crt"), "missing.crt")):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", name)
        with Client(url) as client, pytest.raises(ServerError, match=f"the connection to {url} broke: .*{message}"):
            client.request("HEAD", "/")
