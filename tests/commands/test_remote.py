import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

import perceptual
from perceptual.errors import ServerError


@pytest.fixture
def proxy(photo):
    """A server that wants a key, and answers with the photo; and the requests it got."""
    got = []

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, self.headers))
            allowed = self.headers["Authorization"] == "Bearer secret"
            self.send_response(200 if allowed else 401)
            self.end_headers()
            self.wfile.write(photo if allowed else b"<html>nginx</html>")

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    thread.join()
    server.server_close()


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


def test_a_key_and_all_options_are_sent(run, proxy, photo, tmp_path, monkeypatch):
    (tmp_path / "photo.png").write_bytes(photo)
    url, got = proxy
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
        "/predictions/super_resolution_x8_feature",
    )
    assert (first["X-Style"], first["X-Keep-Colors"], first["X-Format"]) == ("udnie:0.75,dots:0.25", "True", "webp")
    assert (second["X-Scale"], third["X-Scale"]) == ("8", None)
    status, _, err = run("stylize", *line, "--model", "gallery", "--key", "wrong")
    assert status == 1 and err == "perceptual: HTTP 401 Unauthorized; it needs a key: give --key, in Python auth=KEY\n"
    assert "not with --url" in run("stylize", *line, "--model", "gallery", "--device", "cpu")[2]


def test_python_sends_a_key_too(proxy, photo):
    url, _ = proxy
    with perceptual.InferenceClient(url, "secret") as client:
        assert Image.open(BytesIO(client.stylize(photo, "gallery"))).size == (64, 48)
    with perceptual.InferenceClient(url) as client, pytest.raises(ServerError, match="it needs a key"):
        client.stylize(photo, "gallery")
