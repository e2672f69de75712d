"""The page in a real browser, of a real server."""

import io
import os
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from PIL import Image
from serving_fixtures import wait_for

from perceptual.archives.build import package, package_collection
from perceptual.inference.networks import StyleNetwork, SuperResolutionNetwork
from perceptual.inference.weights import save_network
from perceptual.serving.front.bodies import IN_MEMORY

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

PATIENCE = 120_000  # milliseconds
SCRIPT = "<script>document.title = 'taken'</script>"
STYLES = [
    {"name": "dots", "title": "Dots", "artist": "Nobody"},
    {"name": "lines", "title": SCRIPT, "artist": "<img src=x onerror=alert(1)>"},
]


@pytest.fixture(scope="module")
def registered(server, blended, tmp_path_factory):
    """The server with a network of two styles at two sizes, and a collection that enlarges, besides ``tiny``."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("page")
    network = StyleNetwork(styles=2, sizes=2, init_features=4, num_residuals=1, grain=0.5)
    torch.nn.init.normal_(network.styles, 1.0, 0.5)
    save_network(folder / "many.safetensors", network, {"styles": STYLES})
    # Untrained, it enlarges as bicubic does, so that another style is another picture; random weights may give the
    # same for all in bfloat16.
    save_network(folder / "x4.safetensors", SuperResolutionNetwork(scale=4, init_features=4, num_residuals=1), {})
    many, large = (
        package(folder / "many.safetensors", server.model_store),
        package_collection("large", [folder / "x4.safetensors", blended], server.model_store),
    )
    with server.address.management() as management:
        for archive in (many, large):
            management.register(archive.path.name)
        yield server
        for name in ("many", "large"):
            management.unregister(name)


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A browser that was let in, and what it asked for and complained about."""

    def __init__(self, chromium, server, **options):
        self.context = chromium.new_context(**options)
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.asked, self.complaints = [], []
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.url = server.address.inference_url
        self.page.goto(server.address.page())

    def check(self):
        """Fails if anything went elsewhere, or the browser complained."""
        elsewhere = [url for url in self.asked if not url.startswith((f"{self.url}/", f"blob:{self.url}/"))]
        assert (elsewhere, self.complaints) == ([], [])

    def choose(self, name, content):
        self.page.set_input_files("#file", {"name": name, "mimeType": "", "buffer": content})

    def result(self):
        """What can be downloaded, when it can be."""
        self.page.wait_for_selector("#download[href]")
        with self.page.expect_download() as download:
            self.page.click("#download")
        return Path(download.value.path()).read_bytes()

    def set(self, name, value):
        """Sets a control as a user would, and waits until the result that was there has gone."""
        control = self.page.locator(f"#{name}")
        kind = control.evaluate("each => each.type")
        if kind == "range":
            control.fill(str(value))
        elif kind == "checkbox":
            control.set_checked(value)
        else:
            control.select_option(value)
        self.page.wait_for_function("wanted => location.search.includes(wanted)", arg=f"{name}=")


@pytest.fixture
def visit(chromium, registered):
    visit = Visit(chromium, registered)
    yield visit
    visit.context.close()


def encoded(picture, format="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def noise(width, height):
    return Image.effect_noise((width, height), 80).convert("RGB")


def opened(content):
    return Image.open(io.BytesIO(content))


def test_from_the_printed_address_to_a_downloaded_picture(visit, registered, record_testsuite_property):
    begin = time.monotonic()
    assert "key=" not in visit.page.url
    visit.page.click("[data-sample=china]")
    visit.page.wait_for_selector("#frame[data-result]")
    record_testsuite_property("seconds to a preview", round(time.monotonic() - begin, 2))
    picture = opened(visit.result())
    record_testsuite_property("seconds to a download", round(time.monotonic() - begin, 2))
    assert picture.size == (640, 427) and picture.format == "JPEG"
    assert time.monotonic() - begin < 60
    assert "640 × 427" in visit.page.inner_text("#times") and "infer" in visit.page.inner_text("#times")
    wait_for(lambda: visit.page.locator(".thumb img").count() == 4)
    visit.check()


FORMATS = {"JPEG": {}, "PNG": {}, "WEBP": {}, "BMP": {}, "GIF": {}, "TIFF": {}}


@pytest.mark.parametrize("format", FORMATS)
def test_photos_of_each_format(visit, format):
    visit.choose(f"photo.{format.lower()}", encoded(noise(64, 48), format))
    assert opened(visit.result()).size == (64, 48)
    assert visit.page.locator("#before").evaluate("each => each.decode().then(() => each.naturalWidth)") == 64
    visit.check()


@pytest.mark.parametrize("answer", ["late", "lost"])
def test_a_photo_that_only_the_server_reads_may_be_chosen_before_the_styles_are_known(visit, answer):
    held = []
    visit.page.route("**/page/about", lambda route: held.append(route) if answer == "late" else route.abort(), times=1)
    visit.page.reload()
    visit.choose("photo.tiff", encoded(noise(64, 48), "TIFF"))
    assert opened(visit.result()).size == (64, 48)
    assert "infer" in visit.page.inner_text("#times")
    for route in held:
        route.continue_()


@pytest.mark.parametrize("older", ["file", "sample"])
def test_the_photo_that_was_chosen_last_stays(visit, older):
    page, held = visit.page, []
    page.wait_for_selector("#start:not([hidden])")
    page.route(
        "**/predictions/**" if older == "file" else "**/samples/china.jpg", lambda route: held.append(route), times=1
    )
    if older == "file":
        visit.choose("old.tiff", encoded(noise(64, 48), "TIFF"))
    else:
        page.click("[data-sample=china]")
    wait_for(lambda: page.wait_for_timeout(50) or held)
    visit.choose("new.png", encoded(noise(80, 48)))
    assert opened(visit.result()).size == (80, 48)
    if older == "file":
        held[0].fulfill(status=503, headers={"Retry-After": "1"}, body="{}")
    else:
        held[0].continue_()
    page.wait_for_timeout(3000)
    assert page.get_attribute("#before", "alt") == "new.png" and not page.inner_text("#message")


def test_a_result_that_is_brought_back_stays(visit):
    page, held = visit.page, []
    visit.choose("first.png", encoded(noise(64, 48)))
    visit.result()
    visit.set("strength", 0.5)
    visit.result()
    page.route("**/predictions/**", lambda route: held.append(route), times=1)
    visit.choose("second.tiff", encoded(noise(80, 48), "TIFF"))
    wait_for(lambda: page.wait_for_timeout(50) or held)
    page.locator("#results button").last.click()
    held[0].continue_()
    page.wait_for_timeout(2000)
    assert page.get_attribute("#before", "alt") == "first.png"


@pytest.mark.parametrize("broken", ["tiny", "many"])
def test_a_photo_that_only_the_server_reads_needs_one_model_that_answers(visit, broken):
    visit.page.goto(f"{visit.url}/?look={'many/dots' if broken == 'tiny' else 'tiny'}")
    visit.page.route(f"**/predictions/{broken}", lambda route: route.fulfill(status=500, body="{}"))
    visit.choose("photo.tiff", encoded(noise(64, 48), "TIFF"))
    assert opened(visit.result()).size == (64, 48)


# What a user does with a file, as the browser tells the page of it.
GIVEN = """([kind, bytes]) => {
  const given = new DataTransfer();
  given.items.add(new File([new Uint8Array(bytes)], 'photo.png'));
  const event = kind === 'paste'
    ? new ClipboardEvent(kind, { clipboardData: given, bubbles: true })
    : new DragEvent(kind, { dataTransfer: given, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


def test_photos_are_dropped_and_pasted(visit):
    for width, kind in ((64, "paste"), (80, "drop")):
        photo = list(encoded(noise(width, 48)))
        if kind == "drop":
            visit.page.evaluate(GIVEN, ["dragover", photo])
            assert visit.page.locator("#drop").is_visible()
        visit.page.evaluate(GIVEN, [kind, photo])
        visit.page.wait_for_function(f"() => document.getElementById('times').textContent.startsWith('{width} ')")
        assert opened(visit.result()).size == (width, 48)
    assert not visit.page.locator("#drop").is_visible()
    visit.check()


def test_a_photo_that_lies_on_its_side(visit):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°
    visit.choose("photo.jpg", encoded(noise(64, 48), "JPEG", exif=exif))
    assert opened(visit.result()).size == (48, 64)
    ratio = visit.page.locator("#frame").evaluate("each => each.clientWidth / each.clientHeight")
    assert abs(ratio - 48 / 64) < 0.02
    visit.check()


def test_every_control_changes_the_picture(visit):
    visit.choose("photo.png", encoded(noise(600, 60)))
    visit.page.locator("#strip input[value='many/dots']").check()
    visit.set("format", "png")
    pictures = [visit.result()]
    for name, value in (
        ("strength", 0.5), ("stroke", 1), ("grain", False), ("mix", "many/lines"), ("share", 0.75), ("keep", True),
        ("size", "512"), ("enlarge", "large:4"),
    ):  # fmt: skip
        visit.set(name, value)
        pictures.append(visit.result())
    visit.page.locator("#strip input[value='tiny']").check()
    pictures.append(visit.result())
    assert len(set(pictures)) == len(pictures)
    assert [opened(each).size for each in pictures[-3:]] == [(512, 51), (2048, 204), (2048, 204)]
    visit.set("format", "webp")
    assert opened(visit.result()).format == "WEBP"
    visit.check()


def test_fidelity_is_a_choice_where_the_network_has_it(visit):
    visit.choose("photo.png", encoded(noise(60, 40)))
    visit.page.locator("#strip input[value='none']").check()
    visit.set("format", "png")
    visit.set("enlarge", "large:4")
    visit.result()
    assert not visit.page.locator("#fidelity").is_visible()
    visit.set("enlarge", "large:2")
    pictures = [visit.result()]
    for value in (0, 1):
        visit.set("fidelity", value)
        pictures.append(visit.result())
        assert f"fidelity={value}" in visit.page.text_content("#curl")
    assert len(set(pictures)) == 3
    assert [opened(each).size for each in pictures] == [(120, 80)] * 3
    assert "fidelity=1" in visit.page.url
    visit.check()


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_a_photo_that_stays_as_it_is_is_shown_alone_and_not_downloaded(visit, format):
    page = visit.page
    visit.choose(f"photo.{format.lower()}", encoded(noise(60, 40), format))
    visit.result()
    page.locator("#strip input[value='none']").check()
    page.wait_for_selector("text=nothing to download")
    page.wait_for_timeout(1000)
    assert page.get_attribute("#download", "href") is None and page.is_disabled("#enlarged")
    assert page.locator("#before").evaluate("each => each.naturalWidth") == 60
    assert not page.locator("#after").is_visible() and not page.locator("summary").is_visible()
    assert page.get_attribute("#stage", "aria-busy") == "false" and page.locator("#results button").count() == 1
    visit.set("enlarge", "large:4")
    assert opened(visit.result()).size == (240, 160)
    page.select_option("#enlarge", "")
    page.wait_for_selector("text=nothing to download")
    page.locator("#strip input[value='tiny']").check()
    assert opened(visit.result()).size == (60, 40)
    visit.check()


def test_who_asks_for_no_size_is_told_that_large_photos_are_painted_smaller(visit):
    told = visit.page.get_by_text("Photos over 4 megapixels are painted smaller")
    visit.choose("photo.png", encoded(noise(64, 48)))
    visit.page.locator("#strip input[value='tiny']").check()
    for size, shown in (("", True), ("1024", False)):
        visit.page.select_option("#size", size)
        assert told.is_visible() == shown
    about = visit.page.evaluate("fetch('page/about').then((reply) => reply.json())")
    smaller = {model["name"]: model["large_painted_smaller"] for model in about["models"]}
    assert smaller == {"tiny": True, "many": True, "large": False}
    visit.page.select_option("#size", "")
    visit.page.locator("#strip input[value='none']").check()
    assert not told.is_visible()


def test_what_was_made_comes_back(visit):
    visit.choose("photo.png", encoded(noise(64, 48)))
    first = visit.result()
    visit.set("strength", 0.5)
    assert visit.result() != first
    asked = len(visit.asked)
    visit.page.locator("#results button").last.click()
    assert visit.result() == first and visit.page.input_value("#strength") == "1"
    assert not [url for url in visit.asked[asked:] if "/predictions/" in url]
    visit.check()


def test_a_look_can_be_shared_as_an_address(visit, chromium, registered):
    visit.page.click("[data-sample=chelsea]")
    visit.page.locator("#strip input[value='many/dots']").check()
    for name, value in (("mix", "many/lines"), ("share", 0.25), ("strength", 0.5), ("format", "png")):
        visit.set(name, value)
    picture = visit.result()
    other = Visit(chromium, registered)
    other.page.goto(visit.page.url)
    assert other.result() == picture
    assert other.page.input_value("#share") == "0.25" and other.page.input_value("#mix") == "many/lines"
    other.page.goto(f"{visit.url}/?look=gone&mix=x&strength=7&share=x&format=exe&enlarge=x&photo=..%2Fabout")
    other.page.wait_for_selector("#start:not([hidden])")
    other.context.close()


def test_invalid_settings_in_an_address_have_their_defaults(visit):
    visit.page.goto(f"{visit.url}/?look=tiny&size=abc&strength=")
    visit.choose("photo.png", encoded(noise(64, 48)))
    visit.result()
    assert visit.page.input_value("#size") == "1024" and visit.page.input_value("#strength") == "1"
    assert "max-size=1024" in visit.page.text_content("#curl")


def test_comparing(visit):
    visit.choose("photo.png", encoded(noise(64, 48)))
    visit.result()
    slider = visit.page.locator("#compare")
    slider.focus()
    slider.press("Home")
    assert visit.page.locator("#after").evaluate("each => getComputedStyle(each).clipPath") == "inset(0px 0px 0px 0%)"
    slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "1 % photo, 99 % result"
    box = slider.bounding_box()
    visit.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 3)
    assert abs(int(slider.input_value()) - 50) <= 1
    visit.check()


def test_full_size_is_pixel_for_pixel(visit):
    visit.choose("photo.png", encoded(noise(300, 200)))
    visit.result()
    visit.page.click("#enlarged")
    visit.page.wait_for_function("() => document.getElementById('pixels').width === 300")
    visit.page.keyboard.press("Escape")
    assert not visit.page.locator("#full").is_visible()
    visit.check()


def tab_to(page, selector, most=40):
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"{selector} is not reached by Tab")


def test_by_keyboard_alone(visit):
    page = visit.page
    page.wait_for_selector("#start:not([hidden])")
    tab_to(page, "[data-sample=chelsea]")
    page.keyboard.press("Enter")
    page.wait_for_selector("#download[href]")
    tab_to(page, "#strip input")
    before = page.evaluate("document.activeElement.value")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.value") != before
    tab_to(page, "#strength")
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert page.input_value("#strength") == "0.85"
    page.wait_for_selector("#download[href]")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename.startswith("chelsea")
    visit.check()


@pytest.mark.parametrize("width", [360, 1440, 2560])
def test_the_picture_is_the_largest_thing_at_every_width(visit, width):
    page = visit.page
    page.set_viewport_size({"width": width, "height": max(640, width * 9 // 16)})
    for shown in ("#start:not([hidden])", "#download[href]", "#server:not([hidden])"):
        page.wait_for_selector(shown)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if shown.startswith("#start"):
            page.click("[data-sample=china]")
        elif shown.startswith("#download"):
            areas = page.evaluate(
                "['#frame', '#looks', '#controls'].map(each => document.querySelector(each).getBoundingClientRect())"
                ".map(each => each.width * Math.min(each.height, innerHeight))"
            )
            frame = page.locator("#frame").bounding_box()
            assert width < 1000 or areas[0] == max(areas)
            assert page.locator("#controls").evaluate("each => each.scrollWidth <= each.clientWidth")
            assert frame["width"] >= 0.6 * width or frame["height"] >= 0.55 * page.viewport_size["height"]
            page.click("#tabs a[href='#server']")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit, scheme):
    page = visit.page
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.wait_for_selector("#start:not([hidden])")
    check = axe.Axe()
    found = {"start": check.run(page)}
    page.click("[data-sample=china]")
    page.wait_for_selector("#download[href]")
    page.locator("#strip input[value='many/dots']").check()
    visit.set("mix", "many/lines")
    page.wait_for_selector("#download[href]")
    page.click("summary")
    found["work"] = check.run(page)
    page.click("#enlarged")
    found["full size"] = check.run(page)
    page.keyboard.press("Escape")
    page.click("#tabs a[href='#server']")
    page.wait_for_selector("#workers td")
    found["server"] = check.run(page)
    page.context.clear_cookies()
    page.goto(f"{visit.url}/?")
    found["entry"] = check.run(page)
    violations = {view: each.response["violations"] for view, each in found.items()}
    assert {view: [each["id"] for each in rules] for view, rules in violations.items() if rules} == {}, violations


def test_a_wrong_file_is_told_in_the_api_s_words(visit, registered):
    wrong = b"this is no picture" * 10
    visit.page.wait_for_selector("#start:not([hidden])")
    visit.choose("photo.jpg", wrong)
    visit.page.wait_for_selector("#notice[data-shown]")
    with registered.address.inference() as client, pytest.raises(Exception) as refused:
        client.stylize(wrong, "tiny")
    wait_for(lambda: str(refused.value).rstrip(".").lower() in visit.page.inner_text("#message").lower())


def test_an_error_stays_until_it_is_mended(visit):
    visit.page.clock.install()
    visit.page.route("**/predictions/**", lambda route: route.fulfill(status=500, body="{}"))
    visit.choose("photo.png", encoded(noise(64, 48)))
    visit.page.wait_for_selector("#retry:visible")
    visit.page.clock.fast_forward(60_000)
    assert "The server answers 500" in visit.page.inner_text("#message")
    visit.page.unroute("**/predictions/**")
    visit.page.click("#retry")
    visit.page.clock.resume()
    visit.result()
    assert not visit.page.locator("#retry").is_visible() and not visit.page.inner_text("#message")


@pytest.mark.parametrize("which", ["preview", "whole"])
def test_a_reply_that_is_no_picture_is_told(visit, which):
    def garble(route):
        whole = b"max-size" in route.request.post_data_buffer
        route.fulfill(body=b"no picture") if whole == (which == "whole") else route.continue_()

    visit.page.route("**/predictions/**", garble)
    visit.choose("photo.png", encoded(noise(64, 48)))
    visit.page.wait_for_selector("#retry:visible")
    assert "cannot be decoded" in visit.page.inner_text("#message")
    assert visit.page.get_attribute("#stage", "aria-busy") == "false"
    assert visit.page.get_attribute("#download", "href") is None
    visit.page.unroute("**/predictions/**")
    visit.page.click("#retry")
    visit.result()


@pytest.mark.parametrize("retry", [None, "300"])
def test_a_model_that_fails_leaves_the_other_thumbnails(visit, retry):
    headers = {"Retry-After": retry} if retry else {}
    visit.page.route(
        "**/predictions/tiny", lambda route: route.fulfill(status=503 if retry else 500, headers=headers, body="{}")
    )
    visit.page.goto(f"{visit.url}/?look=many/dots")
    visit.choose("photo.png", encoded(noise(64, 48)))
    visit.result()
    visit.page.wait_for_function("() => document.querySelectorAll('.thumb img').length === 3")
    assert not visit.page.locator("input[value=tiny] + .thumb img").count()
    asked = len(visit.asked)
    visit.set("strength", 0.5)
    visit.result()
    again = [url for url in visit.asked[asked:] if url.endswith("/predictions/tiny")]
    assert bool(again) == bool(retry)  # a model that fails is not asked again for this photo, a busy one is


def test_a_mouse_s_wheel_moves_the_strip(visit):
    visit.page.set_viewport_size({"width": 360, "height": 900})
    visit.choose("photo.png", encoded(noise(64, 48)))
    visit.result()
    visit.page.locator("#strip").evaluate("each => each.scrollLeft = 0")
    visit.page.hover("#strip .look >> nth=0")
    visit.page.mouse.wheel(0, 100)
    visit.page.wait_for_function("document.getElementById('strip').scrollLeft === 100")


def test_names_stay_text(visit):
    name = "<img src=x onerror=alert(1)>.png"
    visit.choose(name, encoded(noise(64, 48)))
    visit.result()
    visit.page.locator("#strip input[value='many/lines']").check()
    visit.result()
    assert SCRIPT in visit.page.inner_text("#caption")
    assert name in visit.page.text_content("#curl") and visit.page.get_attribute("#before", "alt") == name
    assert visit.page.title() == "perceptual" and not visit.page.locator("#picture script, [onerror]").count()
    visit.check()


def test_the_command_line_makes_the_same_picture(visit, registered, tmp_path):
    photo = encoded(noise(400, 300))
    assert len(photo) > IN_MEMORY
    name = 'it\'s a "photo", (1).png'
    (tmp_path / name).write_bytes(photo)
    visit.choose(name, photo)
    visit.page.locator("#strip input[value='many/dots']").check()
    visit.set("strength", 0.5)
    visit.set("enlarge", "large:4")
    visit.set("format", "png")
    picture = visit.result()
    (tmp_path / "perceptual").write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'from perceptual.commands import main; main()' \"$@\"\n"
    )
    (tmp_path / "perceptual").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = visit.page.text_content("#curl")
    assert f"--port {registered.ports.inference}" in command
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, env=environment, check=True, capture_output=True)
    (made,) = tmp_path.glob("*x4.png")
    assert made.read_bytes() == picture


def test_what_is_registered_is_on_the_page_at_once(visit, registered, tmp_path):
    page = visit.page
    page.wait_for_selector("#strip input[value='tiny']", state="attached")
    with registered.address.management() as management:
        management.unregister("tiny")
        page.evaluate("dispatchEvent(new Event('focus'))")
        page.wait_for_selector("#strip input[value='tiny']", state="detached")
        management.register("tiny.mar")
        page.evaluate("dispatchEvent(new Event('focus'))")
        page.wait_for_selector("#strip input[value='tiny']", state="attached")
    visit.check()


def test_the_server_goes_and_comes_back(visit, registered):
    visit.choose("photo.png", encoded(noise(64, 48)))
    visit.result()
    visit.context.set_offline(True)
    visit.set("strength", 0.5)
    visit.page.wait_for_selector("text=The server does not answer. Trying again")
    visit.context.set_offline(False)
    assert visit.result()
    registered.end()
    visit.set("keep", True)
    visit.page.wait_for_selector("text=/TorchServe is starting.* Trying again in 5 s/")
    registered.restart()
    assert visit.result()
    wait_for(registered.healthy, seconds=120)


class Elsewhere(BaseHTTPRequestHandler):
    """Another server of this machine, with a page that is nobody's."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title><link rel=icon href=data:,><a>a look</a>")

    def log_message(self, *arguments):
        pass


@pytest.fixture
def elsewhere():
    """The port of another server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_another_page_can_link_to_it_and_do_nothing_else(visit, registered, elsewhere):
    refused = registered.front.counters.refused.labels("origin")._value
    before = refused.get()
    page = visit.page
    page.goto(f"http://127.0.0.1:{elsewhere}/")  # the same site, of which the browser does send the cookie
    options = "{method: 'POST', mode: 'no-cors', credentials: 'include', body: 'photo'}"
    reply = page.evaluate(f"url => fetch(url, {options}).then(each => each.type)", f"{visit.url}/predictions/tiny")
    assert (reply, refused.get()) == ("opaque", before + 1)
    page.goto(f"http://localhost:{elsewhere}/")  # another site, of which it does not
    page.evaluate("url => document.querySelector('a').href = url", f"{visit.url}/?look=tiny")
    page.click("a")
    page.wait_for_selector("#start:not([hidden])")
    assert page.url == f"{visit.url}/?look=tiny"


def test_a_key_from_the_command_line(registered, run, chromium):
    status, address, _ = run("token", "page", "--port", registered.ports.inference)
    assert status == 0
    visit = Visit(chromium, registered)
    visit.context.clear_cookies()
    visit.page.goto(address.strip())
    visit.page.wait_for_selector("#start:not([hidden])")
    visit.context.close()


def test_status_as_the_command_tells_it(visit, registered):
    visit.page.goto(f"{visit.url}/#server")
    visit.page.wait_for_selector("#workers td")
    assert visit.page.inner_text("#health") == "Every model answers."
    rows = visit.page.locator("#models tbody tr").all_inner_texts()
    assert {row.split("\t")[0] for row in rows} == {"tiny", "many", "large"}
    visit.check()
