import base64
import io
import re
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import perceptual

GUIDE = (Path(__file__).parents[2] / "docs/export.md").read_text()
CANVAS = "document.getElementById('stylized').toDataURL('image/png')"


@pytest.fixture(scope="module")
def web_runtime(tmp_path_factory):
    """The folder dist/ of onnxruntime-web."""
    if not shutil.which("npm"):
        pytest.skip("needs npm, for onnxruntime-web")
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "install", "--no-audit", "--no-fund", "onnxruntime-web"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm does not get onnxruntime-web within 180 s")
    if done.returncode:
        pytest.skip(f"npm does not get onnxruntime-web: {done.stderr.strip()[:200]}")
    return folder / "node_modules/onnxruntime-web/dist"


class Files(SimpleHTTPRequestHandler):
    """A folder's files, with the types that browsers insist on."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, *arguments):
        pass


@pytest.fixture
def site(tmp_path):
    """A folder and the address at which it is served."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield tmp_path, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def page():
    """A page of the browser that is installed."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not (browser := shutil.which("chromium")):
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        yield chromium.new_page()
        chromium.close()


def test_the_guide_s_page_makes_our_picture(networks, exported, photo, web_runtime, site, page):
    folder, address = site
    (html,) = re.findall(r"^```html\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    (folder / "index.html").write_text(html)
    (folder / "photo.png").write_bytes(photo)
    shutil.copy(exported("onnx, mixture, half"), folder / "starry_night.onnx")
    (folder / "dist").symlink_to(web_runtime)
    troubles = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(address)
    page.wait_for_function("document.title == 'done'", timeout=120_000)
    assert not troubles
    content = base64.b64decode(page.evaluate(CANVAS).partition(",")[2])
    found = Image.open(io.BytesIO(content)).convert("RGB")
    ours = perceptual.load(networks / "styles.safetensors", "cpu", engine="eager")
    expected = ours.stylize(photo, style="starry_night:3,udnie:1", stroke=0.5)
    assert np.abs(np.int16(found) - np.int16(expected)).max() <= 1
