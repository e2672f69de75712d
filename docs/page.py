"""The page as it looks in a browser: on a desk, on a phone and in the dark."""

import io
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from perceptual.archives.build import package_collection
from perceptual.inference.metadata import find_weights
from perceptual.serving.server import Server

DESK: dict[str, Any] = {"viewport": {"width": 1440, "height": 900}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True
}  # fmt: skip
# How each picture is made: the browser, and the photo and look in the page's address.
VIEWS = {
    "page": (DESK, "photo=china&look=styles/starry_night"),
    "page_dark": (DESK | {"color_scheme": "dark"}, "photo=astronaut&look=styles/udnie"),
    "page_phone": (PHONE, "photo=chelsea&look=styles/the_scream"),
}
PATIENCE = 300_000  # milliseconds


def screenshots() -> Iterator[tuple[str, Image.Image]]:
    """Each picture with its name, of a server of the styles that ship and of enlargement."""
    networks = [find_weights(name) for name in ("styles", "super_resolution_x2", "super_resolution_x4")]
    with tempfile.TemporaryDirectory() as folder:
        package_collection("styles", networks, folder)
        with Server(folder, port=0, tokens=False) as server, sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            for name, (options, look) in VIEWS.items():
                yield name, screenshot(browser, f"{server.address.inference_url}/?{look}", options)
            browser.close()


def screenshot(browser: Browser, url: str, options: dict[str, Any]) -> Image.Image:
    """The page once the result and all thumbnails are there."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#download[href]")
    page.wait_for_function("() => document.querySelectorAll('.thumb:empty').length === 0")
    page.locator("#after").evaluate("each => each.decode()")
    picture = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    context.close()
    return picture
