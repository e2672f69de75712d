import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO

import numpy as np
import pytest
import requests
from PIL import Image

import perceptual
from perceptual.commands import remote
from perceptual.errors import ServerError

DIED = b'{"code": 500, "error": "WorkerDied", "detail": "two workers died during this request"}'


@pytest.fixture
def proxy(photo):
    """A server that wants a key, and answers with the photo; and the requests it got.

    In place of the photo it answers first with the replies, each a status and when to try again, that are ``due``.
    """
    got = []
    due = []

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, self.headers))
            status, again = due.pop(0) if due else (200, None)
            status = status if self.headers["Authorization"] == "Bearer secret" else 401
            self.send_response(status)
            if again is not None:
                self.send_header("Retry-After", again)
            self.end_headers()
            self.wfile.write({200: photo, 500: DIED}.get(status, b"<html>nginx</html>"))

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got, due
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("real_auto")
def test_photos_are_sent_to_a_running_server_with_its_token(run, server, weights, photo, tmp_path):
    (tmp_path / "photo.png").write_bytes(photo)
    line = ("stylize", tmp_path / "photo.png", "-o", tmp_path / "out.png", "--strength", "0.5")
    status, out, err = run(*line, "--model", "tiny", "--url", server.address.inference_url)
    assert (status, err) == (0, "") and out.startswith("1 of 1 photos stylized")
    expected = perceptual.load(weights, "cpu").stylize(photo, strength=0.5)
    found = np.asarray(Image.open(tmp_path / "out.png")).astype(int)
    assert np.abs(found - np.asarray(expected)).mean() <= 1
    status, _, err = run(*line, "--model", "nobody", "--url", server.address.inference_url)
    assert status == 1 and "perceptual models list" in err and err.count("\n") == 1


@pytest.mark.usefixtures("real_auto")
def test_what_a_user_may_mistake_is_told_at_once(run, server, management, photo, tmp_path):
    (tmp_path / "photo.png").write_bytes(photo)
    line = ("stylize", tmp_path / "photo.png", "-o", tmp_path / "out.png", "--model", "tiny", "--url")
    inference = server.address.inference_url
    err = run(*line, server.address.management_url)[2]
    assert "valid token: give its inference address alone, such as http://" in err and "key-file" not in err
    assert f"inference address alone, such as {inference}, got" in run(*line, f"{inference}/predictions/tiny")[2]
    assert "an address begins with http:// or https://" in run(*line, inference.removeprefix("http://"))[2]

    status, _, err = run(*line, inference, "--scale", "2")
    reason = "; a collection of several networks may have it: perceptual package --collection"
    assert status == 1 and "unknown option scale; the options are format" in err and err.endswith(f"{reason}\n")
    url, auth = f"{inference}/predictions/tiny", server.address.tokens("inference")
    for option in ("scale", "fidelity"):
        reply = requests.post(url, files={"data": photo}, data={option: "1"}, auth=auth, timeout=60)
        assert reply.status_code == 422 and reply.json()["detail"].endswith(reason)
    reply = requests.post(url, files={"data": photo}, data={"style": ["a", "b"]}, auth=auth, timeout=60)
    assert (reply.status_code, reply.json()["error"]) == (422, "InvalidOption")

    management.scale("tiny", 0)
    try:
        status, _, err = run(*line, inference)
    finally:
        management.scale("tiny", 1)
    assert status == 1 and err.startswith("perceptual: this model is paused") and err.count("\n") == 1


def test_a_key_and_all_options_are_sent(run, proxy, photo, tmp_path, monkeypatch):
    (tmp_path / "photo.png").write_bytes(photo)
    url, got, _ = proxy
    line = (tmp_path / "photo.png", "-o", tmp_path / "out.webp", "--url", url)
    options = ("--style", "udnie:3,dots", "--keep-colors")
    assert run("stylize", *line, "--model", "gallery/1.1", "--key", "secret", *options)[0] == 0
    monkeypatch.setenv("PERCEPTUAL_KEY", "secret")
    assert run("upscale", *line, "--model", "gallery", "--scale", "8")[0] == 0
    assert run("upscale", *line, "--scale", "8")[0] == 0
    (one, first), (two, second), (three, third) = got
    assert (one, two, three) == (
        "/predictions/gallery/1.1",
        "/predictions/gallery",
        "/predictions/super_resolution_x8",
    )
    assert (first["X-Style"], first["X-Keep-Colors"], first["X-Format"]) == ("udnie:0.75,dots:0.25", "True", "webp")
    assert (second["X-Scale"], third["X-Scale"]) == ("8", None)
    status, _, err = run("stylize", *line, "--model", "gallery", "--key", "wrong")
    assert status == 1 and err == "perceptual: HTTP 401 Unauthorized; it needs a key: give --key, in Python auth=KEY\n"
    assert "do not work with --url" in run("stylize", *line, "--model", "gallery", "--device", "cpu")[2]


def test_a_photo_that_the_server_cannot_do_does_not_end_the_others(run, proxy, photo, tmp_path):
    url, got, due = proxy
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / "in" / name).write_bytes(photo)
    due += [(200, None), (500, None)]
    line = (tmp_path / "in", "-o", tmp_path / "out", "--model", "m", "--url", url, "--key", "secret")
    status, out, err = run("stylize", *line)
    assert status == 1 and out == f"2 of 3 photos stylized, in {tmp_path / 'out'}\n" and len(got) == 3
    assert err == f"{tmp_path / 'in/b.png'}: two workers died during this request\n"


def test_python_sends_a_key_too(proxy, photo):
    url, *_ = proxy
    with perceptual.InferenceClient(url, "secret") as client:
        assert Image.open(BytesIO(client.stylize(photo, "gallery"))).size == (64, 48)
    with perceptual.InferenceClient(url) as client, pytest.raises(ServerError, match="it needs a key"):
        client.stylize(photo, "gallery")


def test_a_busy_server_is_asked_again_when_it_says(run, proxy, photo, tmp_path, monkeypatch):
    (tmp_path / "photo.png").write_bytes(photo)
    url, got, due = proxy
    line = ("stylize", tmp_path / "photo.png", "-o", tmp_path / "out.png", "--model", "m")
    line += ("--url", url, "--key", "secret")
    due += [(503, "1"), (429, "0")]
    status, out, err = run(*line)
    assert (status, len(got)) == (0, 3) and out.startswith("1 of 1 photos stylized")
    first, second = err.splitlines()
    assert first.startswith("HTTP 503") and first.endswith("trying again in 1 s")
    assert second.startswith("HTTP 429") and second.endswith("trying again in 0 s")
    due += [(503, "0"), (503, "0"), (503, "0")]
    status, _, err = run(*line)
    assert (status, len(got), err.count("\n")) == (0, 7, 1)
    assert "5 minutes" in " ".join(run("stylize", "--help")[1].split())
    del got[3:]
    due += [(503, "Sat, 28 Nov 2026 10:00:00 GMT")]  # a date, which nothing here sends
    assert run(*line)[0] == 1 and len(got) == 4
    monkeypatch.setattr(remote, "PATIENCE", 10.0)
    due += [(503, "20")]
    assert run(*line)[0] == 1 and len(got) == 5
