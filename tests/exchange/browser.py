"""A browser, onnxruntime-web and a site: what the guide's page needs."""

import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest


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
