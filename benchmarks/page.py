"""Measures how fast the page shows a preview and the whole picture, for a new photo and for a moved slider.

  python -m benchmarks page
  python -m benchmarks page --model styles_fast --repeats 20

TorchServe serves a network, and Chromium, without a window and on the same cores, opens the page. `preview` and `whole`
are seconds from the click on a sample photo of 640 × 427, or from the move of the slider, until the browser has them.
They include 0.3 s in which the page waits for further moves before it requests the whole picture.
"""

import shutil
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Any

from perceptual.archives.build import package
from perceptual.errors import ServerError
from perceptual.inference.metadata import find_weights
from perceptual.serving.server import Server

from .arguments import count
from .report import Row, Tables, show_progress
from .timing import Spread

ACTS = {
    "a photo": "document.querySelector('[data-sample=china]').click()",
    "a slider": "const slider = document.getElementById('strength'); slider.value = VALUE; "
    "slider.dispatchEvent(new Event('input', { bubbles: true }))",
}
# Seconds until the picture changes, and until there is a new one to download.
MEASURE = """() => new Promise((done) => {
  const [after, download] = ['after', 'download'].map((id) => document.getElementById(id));
  const [shown, previous, begin] = [after.src, download.href, performance.now()];
  const seconds = () => (performance.now() - begin) / 1000;
  let preview = null;
  new MutationObserver((_, observer) => {
    if (preview === null && after.src && after.src !== shown) preview = seconds();
    if (!download.href || download.href === previous) return;
    observer.disconnect();
    done([preview, seconds()]);
  }).observe(document.body, { subtree: true, attributeFilter: ['src', 'href'] });
  ACT
})"""


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the benchmark's options."""
    parser.add_argument("--model", default="styles", help="a network that ships (default: %(default)s)")
    parser.add_argument("--repeats", type=count, default=10, metavar="N", help="of each (default: %(default)s)")


def run(args: Namespace) -> Tables:
    """Serves the network and uses the page."""
    return {"The page": list(measure(args.model, args.repeats))}


def measure(model: str, repeats: int) -> Iterator[Row]:
    """A row for each action of a user, after one unmeasured time. Raises ServerError if chromium is missing."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        raise ServerError("chromium is not installed: apt-get install chromium")
    with tempfile.TemporaryDirectory() as scratch:
        package(find_weights(model), scratch)
        with Server(scratch, port=0) as server, sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(server.address.page())
            page.wait_for_selector("#start:not([hidden])")
            for name, act in ACTS.items():
                show_progress(name)
                times = [once(page, act, number / (repeats + 2)) for number in range(repeats + 1)][1:]
                preview, whole = zip(*times, strict=True)
                yield {"network": model, "of": name, "preview": Spread.of(preview), "whole": Spread.of(whole)}
            browser.close()


def once(page: Any, act: str, value: float) -> list[float]:
    """Seconds until the preview and until the whole picture."""
    times: list[float] = page.evaluate(MEASURE.replace("ACT", act.replace("VALUE", f"{value:.2f}")))
    page.wait_for_function(
        "() => document.querySelectorAll('.thumb:empty').length === 0"
    )  # until no thumbnail is pending
    return times
