import json
import logging
import re
import shutil
import struct
import sys
import time
import zlib
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import ts
import yaml
from PIL import Image
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.model_loader import ModelLoaderFactory

import perceptual
from perceptual.errors import ImageTooLarge, WeightsError
from perceptual.inference import images, large
from perceptual.inference.large import stylize_large
from perceptual.inference.networks import StyleNetwork, SuperResolutionNetwork
from perceptual.inference.weights import load_network, save_network
from perceptual.options import StyleOptions
from perceptual.worker import handler as handler_module
from perceptual.worker import measure, pace
from perceptual_handlers.style_transfer import StyleTransferHandler

HANDLERS = Path(__file__).parents[2] / "handlers"


class Response(NamedTuple):
    status: int
    phrase: str
    content_type: str
    body: bytes

    @property
    def image(self):
        assert self.status == 200, self.body
        return Image.open(BytesIO(self.body))

    @property
    def error(self):
        assert self.content_type == "application/json"
        assert self.phrase == HTTPStatus(self.status).phrase
        content = json.loads(self.body)
        assert content.keys() == {"error", "detail"}
        return self.status, content["error"]

    @property
    def detail(self):
        return json.loads(self.body)["detail"]


class Served:
    """A model as a TorchServe worker runs it, short of the socket."""

    def __init__(self, folder, handler="style_transfer.py"):
        metrics = MetricsCacheYamlImpl(config_file_path=str(Path(ts.__file__).parent / "configs/metrics.yaml"))
        metrics.initialize_cache()
        loader = ModelLoaderFactory.get_model_loader()
        self.service = loader.load("tiny", str(folder), handler, batch_size=8, metrics_cache=metrics)
        self.service.set_cl_socket(None)
        self.handler = self.service._entry_point.__self__

    def __call__(self, *requests):
        """Answers a batch of requests made by :func:`raw` or :func:`form`."""
        batch = [request | {"requestId": f"request-{index}".encode()} for index, request in enumerate(requests)]
        responses = read_responses(self.service.predict(batch))
        assert list(responses) == [request["requestId"].decode() for request in batch]
        return list(responses.values())


def read_responses(message):
    """Reads a worker's message to the front end: the batch's status, then one response per request id."""
    stream = BytesIO(message)

    def number():
        return struct.unpack("!i", stream.read(4))[0]

    def block():
        return stream.read(number())

    assert (number(), block()) == (200, b"Prediction success")
    responses = {}
    while (length := number()) != -1:
        identity = stream.read(length).decode()
        content_type, status, phrase = block().decode(), number(), block().decode("ascii")
        headers = {block().decode(): block().decode() for _ in range(number())}
        timing = headers.pop("Server-Timing", "")  # there is none where nothing was begun
        stages = re.findall(r"(\w+);dur=\d+\.\d(?:, |$)", timing)
        assert headers == {"content-type": content_type}
        assert {"decode", "infer", "encode"} <= set(stages) or not content_type.startswith("image/")
        responses[identity] = Response(status, phrase, content_type, block())
    assert not stream.read()
    return responses


def request(headers, parameters):
    return {
        "headers": [{"name": name.encode(), "value": value.encode()} for name, value in headers],
        "parameters": parameters,
    }


def raw(body, *headers):
    """A request with a body of bytes, or text or JSON in the form TorchServe delivers it."""
    return request(headers, [{"name": "body", "contentType": "", "value": body}])


def form(*headers, **fields):
    """A multipart request; ``_`` in a field's name stands for ``-``."""
    return request(
        headers,
        [{"name": name.replace("_", "-"), "contentType": "", "value": value} for name, value in fields.items()],
    )


def noise(width=24, height=20, mode="RGB", seed=0):
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze())


def encoded(image, format="PNG"):
    buffer = BytesIO()
    image.save(buffer, format)
    return bytearray(buffer.getvalue())


PHOTO = encoded(noise())
AS_PNG = ("Accept", "image/png")


def unpacked(folder, handler, networks, provenance=None):
    """An unpacked archive with networks, by name."""
    for name, network in networks.items():
        save_network(folder / f"{name}.safetensors", network, provenance or {})
    save_network(folder / "large/x4.safetensors", enlarging_network(), {})
    for name in (f"{handler}.py", f"{handler}.yaml"):
        shutil.copy(HANDLERS / name, folder)
    manifest = {"model": {"modelName": "tiny", "configFile": f"{handler}.yaml"}}
    (folder / "MAR-INF").mkdir()
    (folder / "MAR-INF/MANIFEST.json").write_text(json.dumps(manifest))
    return folder


@contextmanager
def serving(archive, handler):
    """An unpacked archive as a worker of its own serves it, with its folder on the path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(archive)
        yield Served(archive, f"{handler}.py")
    sys.modules.pop(handler, None)


def style_network(seed=0, **options):
    torch.manual_seed(seed)
    return StyleNetwork(init_features=4, num_residuals=1, **options)


def enlarging_network():
    return SuperResolutionNetwork(scale=4, init_features=4, num_residuals=1, output="tanh")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return unpacked(tmp_path_factory.mktemp("archive"), "style_transfer", {"tiny": style_network()})


@pytest.fixture(scope="module")
def served(archive):
    with serving(archive, "style_transfer") as served:
        yield served


@pytest.fixture(scope="module")
def predictor(archive):
    return perceptual.load(archive / "tiny.safetensors", device="cpu")


def assert_same(found, expected):
    assert found.mode == expected.mode
    np.testing.assert_array_equal(np.array(found), np.array(expected))


# ---- Pictures


@pytest.mark.slow
def test_a_large_photo_is_painted_small_unless_a_size_is_asked_for(served, archive, predictor, monkeypatch):
    monkeypatch.setattr(large, "LARGE", 1000)
    monkeypatch.setattr(large, "PAINTED", 400)
    photo = encoded(noise(64, 48))
    asked, sized, small = served(raw(photo, AS_PNG), raw(photo, AS_PNG, ("X-Max-Size", "16384")), raw(PHOTO, AS_PNG))
    upscaler = perceptual.load(archive / "large/x4.safetensors", device="cpu")
    painted = stylize_large(predictor, upscaler, images.decode(bytes(photo)), StyleOptions())
    assert_same(asked.image, painted.to_pil())
    assert_same(sized.image, predictor.stylize(bytes(photo)))
    assert_same(small.image, predictor.stylize(bytes(PHOTO)))


@pytest.mark.slow
def test_the_reply_has_the_pixels_of_the_predictor(served, predictor):
    (response,) = served(raw(PHOTO, AS_PNG))
    assert (response.status, response.phrase, response.content_type) == (200, "OK", "image/png")
    assert_same(response.image, predictor.stylize(bytes(PHOTO)))
    assert not np.array_equal(np.array(response.image), np.array(noise()))


def test_a_batch_of_different_sizes_and_options(served, predictor):
    photos = [noise(24, 20, seed=1), noise(40, 16, seed=2), noise(24, 20, seed=3), noise(24, 20, "RGBA", seed=4)]
    options = [{"strength": 0.25}, {"keep_colors": True}, {"max_size": 16}, {}]
    headers = [("X-Strength", "0.25"), ("X-Keep-Colors", "on"), ("X-Max-Size", "16"), ("X-Nothing", "1")]
    responses = served(*(raw(encoded(p), h, AS_PNG) for p, h in zip(photos, headers, strict=True)))
    for response, photo, wish in zip(responses, photos, options, strict=True):
        expected = np.array(predictor.stylize(photo, **wish)).astype(int)
        assert np.abs(np.array(response.image) - expected).max() <= 1  # a batch adds up in another order
    assert responses[2].image.size == (16, 13)
    np.testing.assert_array_equal(np.array(responses[3].image)[..., 3], np.array(photos[3])[..., 3])


@pytest.mark.parametrize("name", ["data", "body"])
def test_multipart(served, predictor, name):
    (response,) = served(form(AS_PNG, **{name: PHOTO, "strength": bytearray(b"0.5"), "keep_colors": "yes"}))
    assert_same(response.image, predictor.stylize(bytes(PHOTO), strength=0.5, keep_colors=True))


def test_headers_in_any_case(served, predictor):
    (response,) = served(raw(PHOTO, ("x-STRENGTH", "0.5"), ("aCCEPT", "image/png")))
    assert_same(response.image, predictor.stylize(bytes(PHOTO), strength=0.5))


def test_a_field_goes_before_a_header(served, predictor):
    (response,) = served(form(AS_PNG, ("X-Strength", "0.1"), data=PHOTO, strength="0.5"))
    assert_same(response.image, predictor.stylize(bytes(PHOTO), strength=0.5))


def test_other_headers_are_none_of_ours(served):
    (response,) = served(raw(PHOTO, ("X-Forwarded-For", "10.0.0.1"), ("X-Request-Id", "é"), ("Strength", "9")))
    assert response.status == 200


def test_a_field_called_like_a_header(served):
    # TorchServe puts a dictionary of each field among the request's headers.
    for response in served(form(data=PHOTO, accept="image/png"), form(data=PHOTO, x_strength="0.5")):
        assert response.error == (422, "InvalidOption")


def test_format_and_quality(served):
    small, large, webp, wish = served(
        raw(PHOTO, ("X-Quality", "10")),
        raw(PHOTO, ("X-Quality", "95")),
        raw(PHOTO, ("Accept", "image/webp")),
        form(AS_PNG, data=PHOTO, format="webp"),  # the option goes before Accept
    )
    assert [each.content_type for each in (small, large, webp, wish)] == ["image/jpeg"] * 2 + ["image/webp"] * 2
    assert [each.image.format for each in (small, large, webp, wish)] == ["JPEG"] * 2 + ["WEBP"] * 2
    assert len(small.body) < len(large.body)


# ---- Errors


def large_png():
    data = encoded(noise())
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return data


BAD = {
    "not an image": (raw(bytearray(b"hello")), (400, "InvalidImage"), "not an image"),
    "empty": (raw(bytearray()), (400, "InvalidImage"), "empty"),
    "truncated": (raw(PHOTO[:-200]), (400, "InvalidImage"), "truncated"),
    "text": (raw("hello"), (400, "InvalidImage"), "the body is text; send the image itself: curl -T"),
    "json": (raw({"image": "aGVsbG8="}), (400, "InvalidImage"), "the body is JSON; send the image itself: curl -T"),
    "json list": (raw([1, 2]), (400, "InvalidImage"), "the body is JSON"),
    "unparsed json": (
        raw(bytearray(b' {"instances": [{"b64": "aGVsbG8="}]}')),
        (400, "InvalidImage"),
        "the body is JSON; send the image itself: curl -T",
    ),
    "nothing": (form(), (400, "InvalidImage"), "no image in the request; send the image itself"),
    "no value": (raw(None), (400, "InvalidImage"), "no image"),
    "another field": (form(image=PHOTO), (400, "InvalidImage"), "form field data"),
    "unsupported": (raw(encoded(noise(), "PPM")), (415, "UnsupportedFormat"), "send JPEG, PNG"),
    "too large": (raw(large_png()), (413, "ImageTooLarge"), "100000×100000 pixels; the limit is 67108864"),
    "out of range": (
        raw(PHOTO, ("X-Strength", "2")),
        (422, "InvalidOption"),
        "strength: expected a number from 0 to 1",
    ),
    "larger tile": (
        raw(PHOTO, ("X-Tile", "4096")),
        (422, "InvalidOption"),
        "tile: expected a whole number from 128 to 2048, got '4096'",
    ),
    "empty header": (raw(PHOTO, ("X-Strength", "")), (422, "InvalidOption"), "strength: expected a number"),
    "no text": (form(data=PHOTO, strength=b"\xff"), (422, "InvalidOption"), "strength: expected a number"),
    "json field": (form(data=PHOTO, strength={"a": 1}), (422, "InvalidOption"), "strength: expected a number"),
    "unknown field": (
        form(data=PHOTO, strenght="1"),
        (422, "InvalidOption"),
        "unknown option strenght; the options are format, quality, tile, style, stroke, grain, strength, keep-colors",
    ),
    "header of an option that other models have": (
        raw(PHOTO, ("X-Scale", "4")),
        (422, "InvalidOption"),
        "unknown option scale; the options are format, quality",
    ),
    "two images": (form(data=PHOTO, body=PHOTO), (400, "InvalidImage"), "there are two images in the request"),
    "unacceptable": (raw(PHOTO, ("Accept", "text/html")), (406, "NotAcceptable"), "image/jpeg, image/png, image/webp"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_error_is_told_with_its_own_status(served, name):
    bad, error, detail = BAD[name]
    (response,) = served(bad)
    assert response.error == error
    assert detail in response.detail


def test_errors_leave_their_neighbours_alone(served, predictor):
    good = raw(PHOTO, AS_PNG)
    responses = served(good, *(bad for bad, *_ in BAD.values()), good)
    assert [each.error for each in responses[1:-1]] == [error for _, error, _ in BAD.values()]
    for response in (responses[0], responses[-1]):
        found, expected = np.array(response.image).astype(int), np.array(predictor.stylize(bytes(PHOTO)))
        assert np.abs(found - expected).max() <= 1


def test_a_row_that_is_no_dictionary(served):
    (body,) = served.handler.handle([PHOTO], context_of(served, {}))
    assert json.loads(body)["error"] == "InvalidImage"


def context_of(served, *headers):
    context = served.service.context
    context.request_processor = [ts.context.RequestProcessor(each) for each in headers]
    return context


@pytest.mark.parametrize("data", [None, []])
def test_no_rows(served, data):
    assert served.handler.handle(data, context_of(served)) == []


@pytest.mark.parametrize("message", ["CUDA out of memory", "naïve\nmessage ✗"])
def test_an_unexpected_failure_is_a_500_without_details(served, monkeypatch, caplog, message):
    def fail(pictures, options, watch):
        raise RuntimeError(message)

    monkeypatch.setattr(served.handler, "run", fail)
    with caplog.at_level(logging.ERROR):
        (response,) = served(raw(PHOTO))
    assert response.error == (500, "InternalError")
    assert message not in response.detail
    assert message in caplog.text
    assert "Traceback" in caplog.text


def test_neighbours_survive_a_batch_that_fails(served, monkeypatch, caplog):
    run, batches = served.handler.run, []

    def fail_on_wide(pictures, options, watch):
        batches.append(len(pictures))
        if any(picture.rgb.shape[2] > 30 for picture in pictures):
            raise RuntimeError("too wide")
        return run(pictures, options, watch)

    monkeypatch.setattr(served.handler, "run", fail_on_wide)
    responses = served(raw(PHOTO), raw(encoded(noise(32, 8))), raw(bytearray(b"bad")), raw(PHOTO))
    assert [each.status for each in responses] == [200, 500, 400, 200]
    assert batches == [3, 1, 1, 1]
    assert "too wide" in caplog.text


def test_a_picture_that_cannot_be_encoded_fails_alone(served, monkeypatch):
    encode = handler_module.images.encode

    def fail_on_webp(picture, format, quality):
        if format == "webp":
            raise OSError("no memory")
        return encode(picture, format, quality)

    monkeypatch.setattr(handler_module.images, "encode", fail_on_webp)
    responses = served(raw(PHOTO), raw(PHOTO, ("Accept", "image/webp")))
    assert [each.status for each in responses] == [200, 500]


# ---- Starting


def test_configuration(served):
    assert served.handler.max_pixels == 8192**2
    config = served.service.context.model_yaml_config
    assert {"minWorkers", "maxWorkers", "responseTimeout", "startupTimeout"} <= config.keys()  # or TorchServe's own


def test_a_reply_over_the_limit_is_refused(served, monkeypatch):
    monkeypatch.setattr(served.handler, "max_reply", 1000)
    png, jpeg = served(raw(PHOTO, AS_PNG), raw(encoded(noise(8, 8)), ("X-Quality", "1")))
    assert (png.error, jpeg.status) == ((413, "ImageTooLarge"), 200)
    assert "bytes as png, and the server sends 1,000 at most: ask for jpeg" in png.detail


def test_a_tile_makes_no_difference_but_in_memory(served, archive):
    photo = encoded(noise(200, 150))
    in_bands, at_once = (
        np.array(response.image).astype(int)
        for response in served(raw(photo, AS_PNG, ("X-Tile", "128")), raw(photo, AS_PNG))
    )
    exact = perceptual.load(archive / "tiny.safetensors", "cpu", engine="eager").stylize(bytes(photo))
    for made in (in_bands, at_once):  # perhaps in bfloat16
        assert np.abs(made - np.array(exact)).mean() < 1


def test_warm_up_runs_the_sizes_of_the_configuration(archive, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        StyleTransferHandler, "run", lambda self, pictures, options, watch: sizes.extend(pictures) or pictures
    )
    StyleTransferHandler().initialize(Context(archive, warm_up=["64x48", "32x32"]))
    ran = [tuple(picture.rgb.shape) for picture in sizes]
    assert ran == [(3, 48, 64), (3, 32, 32), (3, 48, 64), (3, 48, 64)]  # the largest once more, for the pace
    with pytest.raises(ValueError, match="invalid literal"):
        StyleTransferHandler().initialize(Context(archive, warm_up=["large"]))


@pytest.fixture
def hurried(archive, served, monkeypatch):  # which has the archive's folder on the path
    """A worker that started on a machine so busy that it took a hundred thousand times as long."""
    clock = time.perf_counter
    with monkeypatch.context() as slowed:
        slowed.setattr(time, "perf_counter", lambda: 1e5 * clock())
        return Served(archive)


def gif_of(side):
    """61 bytes or so: one pixel, on a canvas of any size."""
    canvas = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
    return bytearray(canvas + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\2\2\x44\1\0;")


def test_a_slow_start_refuses_no_photo_that_cameras_take(hurried):
    (learned,) = hurried.handler.paces.values()
    assert learned.seconds > 1e-3  # a photo of 24 megapixels would take hours
    limits = hurried.handler.limits_of(hurried.handler.options(), 1, "jpeg")
    limits.check(6048, 4024)
    with pytest.raises(ImageTooLarge, match="8192×8192 pixels take this server too long; the limit is 25000000 pixels"):
        limits.check(8192, 8192)


def test_requests_make_up_for_a_slow_start(hurried, monkeypatch):
    (learned,) = hurried.handler.paces.values()
    slow = learned.seconds
    monkeypatch.setattr(hurried.handler, "max_seconds", 1e-3 * 8192**2)
    (refused,) = hurried(raw(gif_of(8192)))
    assert refused.error == (413, "ImageTooLarge")
    (answered,) = hurried(raw(encoded(noise(64, 48))))
    assert answered.status == 200
    assert learned.seconds < 1e-3 < slow
    hurried.handler.limits_of(hurried.handler.options(), 1, "jpeg").check(8192, 8192)


@pytest.mark.parametrize(
    ("headers", "seconds"), [((), 6.6e-6), ([("X-Max-Size", "16384")], 1e-6)], ids=["painted smaller", "own size"]
)
def test_a_tiny_file_of_a_large_canvas_is_refused_at_once(served, monkeypatch, headers, seconds):
    (learned,) = served.handler.paces.values()
    monkeypatch.setattr(pace, "PAINTED_SMALLER", 0.5)
    monkeypatch.setattr(learned, "seconds", seconds)
    monkeypatch.setattr(served.handler, "run", None)  # nothing must reach it
    (response,) = served(raw(gif_of(8192), *headers))
    assert response.error == (413, "ImageTooLarge")
    assert "the limit is 36363636 pixels in all: send 6030×6030 at most" in response.detail


def test_what_is_reduced_first_does_not_take_too_long(served, monkeypatch):
    (learned,) = served.handler.paces.values()
    monkeypatch.setattr(pace, "ORDINARY", 1000)
    monkeypatch.setattr(learned, "seconds", 1.0)
    refused, reduced = served(raw(encoded(noise(80, 25))), raw(encoded(noise(80, 25)), ("X-Max-Size", "40")))
    assert refused.error == (413, "ImageTooLarge")
    assert reduced.image.size == (40, 13)


@pytest.mark.slow
def test_a_photo_that_is_painted_smaller_may_have_more_pixels_than_at_its_own_size(served, monkeypatch):
    (learned,) = served.handler.paces.values()
    monkeypatch.setattr(large, "LARGE", 1000)
    monkeypatch.setattr(large, "PAINTED", 400)
    monkeypatch.setattr(pace, "ORDINARY", 2000)
    monkeypatch.setattr(learned, "seconds", 0.02)
    photo = encoded(noise(64, 48))
    smaller, own = served(raw(photo), raw(photo, ("X-Max-Size", "16384")))
    assert smaller.image.size == (64, 48)
    assert own.error == (413, "ImageTooLarge")
    assert learned.seconds < 0.02  # measured by the photo that was painted smaller


@pytest.mark.parametrize("tile", ["128", "2048"])
def test_work_past_its_time_is_given_up_and_its_neighbours_are_answered(served, monkeypatch, tile):
    (learned,) = served.handler.paces.values()
    monkeypatch.setattr(learned, "seconds", 1e-3)
    monkeypatch.setattr(pace, "PATIENCE", -1.0)  # the time of all is over before it begins, …
    monkeypatch.setattr(served.handler, "max_seconds", -1.0)
    late, wrong = served(raw(encoded(noise(300, 200)), ("X-Tile", tile)), raw(bytearray(b"no image")))
    assert late.error == (503, "DeadlineExceeded")
    assert "took much longer than expected" in late.detail
    assert wrong.error == (400, "InvalidImage")
    monkeypatch.setattr(served.handler, "max_seconds", 60.0)  # … but not of this one
    assert served(raw(encoded(noise(8, 8))))[0].status == 200


def test_work_ends_between_two_parts(served, monkeypatch):
    """Each part makes the clock advance by a second, of which the picture has three."""
    calls, clock = [], time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + len(calls))
    proceed = measure.Watch.proceed
    monkeypatch.setattr(measure.Watch, "proceed", lambda self: (calls.append(self), proceed(self)))
    monkeypatch.setattr(served.handler, "max_seconds", 3.0)
    (late,) = served(raw(encoded(noise(300, 200)), ("X-Tile", "128")))
    assert late.error == (503, "DeadlineExceeded")
    assert 1 < len(calls) <= 4


def test_a_batch_ends_before_its_worker_is_taken_for_dead(served, monkeypatch):
    monkeypatch.setattr(served.handler, "batch_seconds", -1.0)
    (late,) = served(raw(PHOTO))
    assert late.error == (503, "DeadlineExceeded")
    assert served.handler.max_seconds == yaml.safe_load((HANDLERS / "style_transfer.yaml").read_text())["max_seconds"]


def test_a_lost_gpu_ends_the_worker(served, monkeypatch, caplog):
    ends = []

    class Ended(BaseException):
        pass

    def end(status):
        ends.append(status)
        raise Ended

    def fail(pictures, options, watch):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(served.handler, "run", fail)
    monkeypatch.setattr(handler_module.os, "_exit", end)
    for requests in ([raw(PHOTO)], [raw(PHOTO), raw(PHOTO)]):
        with pytest.raises(Ended):
            served(*requests)
    assert ends == [1, 1]
    assert "the GPU fails; ending this worker" in caplog.text


def test_a_gpu_short_of_memory_is_a_507(served, monkeypatch):
    def fail(images, styles, side, proceed):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(served.handler.predictor, "run_in_parts", fail)
    (response,) = served(raw(PHOTO))
    assert response.error == (507, "OutOfMemory")
    assert "send a smaller picture (max-size)" in response.detail


def test_a_log_line_tells_stages_and_tiles(enlarging, caplog):
    with caplog.at_level(logging.INFO):
        enlarging(
            raw(PHOTO, ("X-Request-Start", f"t={time.time() - 1.5:.3f}")), raw(PHOTO, ("X-Request-Start", "soon"))
        )
    first, second = (json.loads(message) for message in caplog.messages if message.startswith("{"))
    stages = {"decode_ms", "infer_ms", "match_ms", "encode_ms"}
    assert stages | {"wait_ms"} == {name for name in first if name.endswith("_ms")}
    assert stages == {name for name in second if name.endswith("_ms")}
    assert 1490 < first["wait_ms"] < 5000
    assert first["tiles"] == 1


def test_limits_and_engine_are_the_configuration_s(archive, monkeypatch):
    asked, handler = [], StyleTransferHandler()
    load = partial(perceptual.load, device="cpu")
    monkeypatch.setattr(handler_module, "load", lambda path, device, engine: asked.append(engine) or load(path))
    handler.initialize(Context(archive, max_pixels=479, max_reply=999, max_tile=256, engine="eager"))
    assert (handler.max_pixels, handler.max_reply, handler.max_tile, *asked) == (479, 999, 256, "eager")


@pytest.mark.parametrize(
    ("name", "network"),
    [("style_transfer", StyleNetwork), ("super_resolution", SuperResolutionNetwork), ("collection", StyleNetwork)],
)
def test_a_server_s_largest_tile_is_the_task_s_default(name, network):
    assert yaml.safe_load((HANDLERS / f"{name}.yaml").read_text())["max_tile"] == network.tile


def test_an_image_over_the_pixel_limit_is_refused(served, monkeypatch):
    monkeypatch.setattr(served.handler, "max_pixels", 24 * 20 - 1)
    (response,) = served(raw(PHOTO))
    assert response.error == (413, "ImageTooLarge")


class Context:
    def __init__(self, folder, gpu_id=None, **config):
        self.system_properties = {"model_dir": str(folder), "gpu_id": gpu_id}
        self.model_yaml_config = config
        self.model_name, self.manifest = "tiny", {"model": {"modelVersion": "1.2"}}
        self.metrics = MetricsCacheYamlImpl(config_file_path=str(Path(ts.__file__).parent / "configs/metrics.yaml"))


@pytest.mark.parametrize("files", [[], ["a.safetensors", "b.safetensors"]])
def test_an_archive_holds_one_weights_file(tmp_path, files):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(WeightsError, match=f"exactly one .safetensors file; this one has {', '.join(files) or 'none'}"):
        StyleTransferHandler().initialize(Context(tmp_path))


@pytest.mark.parametrize(
    ("available", "gpu_id", "device"),
    [(True, 1, "cuda:1"), (True, None, "cpu"), (False, 0, "cpu"), (True, 0, "cuda:0")],
)
def test_device(archive, monkeypatch, available, gpu_id, device):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(
        handler_module,
        "load",
        lambda path, device, engine: asked.append((path.name, device, engine)) or perceptual.load(path, "cpu"),
    )
    StyleTransferHandler().initialize(Context(archive, gpu_id))
    assert asked == [("tiny.safetensors", device, "auto")]


@pytest.mark.parametrize(
    ("cores", "workers", "environment", "expected"),
    [(8, 2, {}, 4), (2, 8, {}, 1), (8, 2, {"OMP_NUM_THREADS": "8"}, None), (8, 2, {"OMP_NUM_THREADS": ""}, 4)],
)
def test_workers_share_the_cores(archive, monkeypatch, cores, workers, environment, expected):
    threads = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    StyleTransferHandler().initialize(Context(archive, maxWorkers=workers))
    assert threads == ([] if expected is None else [expected])


# ---- Super-resolution


@pytest.fixture(scope="module")
def enlarging_archive(tmp_path_factory):
    torch.manual_seed(0)
    return unpacked(tmp_path_factory.mktemp("enlarging_archive"), "super_resolution", {"tiny": enlarging_network()})


@pytest.fixture(scope="module")
def enlarging(enlarging_archive):
    with serving(enlarging_archive, "super_resolution") as served:
        yield served


@pytest.fixture(scope="module")
def upscaler(enlarging_archive):
    return perceptual.load(enlarging_archive / "tiny.safetensors", device="cpu")


def test_super_resolution_by_header_field_and_default(enlarging, upscaler):
    without = {"histogram_matching": False}
    responses = enlarging(
        raw(PHOTO, AS_PNG),
        raw(PHOTO, AS_PNG, ("X-Histogram-Matching", "off")),
        form(AS_PNG, data=PHOTO, histogram_matching="off"),
        form(AS_PNG, data=PHOTO, low_frequencies="off"),
    )
    for response, options in zip(responses, [{}, without, without, {"low_frequencies": False}], strict=True):
        assert response.image.size == (96, 80)
        expected = np.array(upscaler.upscale(bytes(PHOTO), **options)).astype(int)
        assert np.abs(np.array(response.image) - expected).max() <= 1  # a batch adds up in another order


def test_each_request_of_a_batch_chooses_its_fidelity(blended, tmp_path):
    network, _ = load_network(blended)
    folder = unpacked(tmp_path, "super_resolution", {"tiny": network})
    upscaler = perceptual.load(blended, device="cpu")
    with serving(folder, "super_resolution") as enlarging:
        crisp, faithful, usual, wrong, described = enlarging(
            raw(PHOTO, AS_PNG, ("X-Fidelity", "0")),
            form(AS_PNG, data=PHOTO, fidelity="1"),
            raw(PHOTO, AS_PNG),
            raw(PHOTO, ("X-Fidelity", "2")),
            raw(b"", ("describe", "True")),
        )
    for response, fidelity in ((crisp, 0), (faithful, 1), (usual, 0.5)):
        expected = np.array(upscaler.upscale(bytes(PHOTO), fidelity=fidelity)).astype(int)
        assert np.abs(np.array(response.image) - expected).max() <= 1
    assert not np.array_equal(crisp.image, faithful.image)
    assert wrong.detail == "fidelity: expected a number from 0 to 1, got '2'"
    told = json.loads(described.body)
    assert told["scales"] == told["blended"] == [2]


def test_fidelity_needs_a_network_that_has_the_choice(enlarging, collection):
    for served, headers in ((enlarging, []), (collection[1], [("X-Scale", "4")])):
        (wrong,) = served(raw(PHOTO, ("X-Fidelity", "0"), *headers))
        assert wrong.error == (422, "InvalidOption")
        assert wrong.detail == "fidelity: this network has one set of weights"


def test_super_resolution_enlarges_alpha_and_a_single_pixel(enlarging):
    transparent, pixel = enlarging(
        raw(encoded(noise(mode="RGBA")), AS_PNG), raw(encoded(Image.new("RGB", (1, 1))), AS_PNG)
    )
    assert (transparent.image.mode, transparent.image.size) == ("RGBA", (96, 80))
    assert pixel.image.size == (4, 4)


def test_super_resolution_takes_its_own_options(enlarging):
    wrong, bad = enlarging(form(data=PHOTO, strength="1"), form(data=PHOTO, histogram_matching="maybe"))
    assert wrong.error == bad.error == (422, "InvalidOption")
    assert "the options are format, quality, tile, fidelity, histogram-matching, low-frequencies" in wrong.detail
    assert bad.detail == "histogram-matching: expected on or off, got 'maybe'"


def test_a_result_over_the_limit_is_refused_before_the_work(enlarging, monkeypatch):
    monkeypatch.setattr(enlarging.handler, "max_pixels", 100 * 80)
    monkeypatch.setattr(enlarging.handler, "run", None)  # nothing must reach it
    (response,) = enlarging(raw(encoded(noise(50, 40))))
    assert response.error == (413, "ImageTooLarge")
    assert response.detail == (
        "the image has 50×40 pixels, 4 times larger 200×160; the limit is 8000 pixels in all: send 25×20 at most"
    )
    (response,) = enlarging(raw(encoded(Image.new("RGB", (4100, 1))), ("Accept", "image/webp")))
    assert response.detail.endswith("16400×4; the limit is 8000 pixels in all: send 500×1 at most")


def test_what_fits_is_said_to_fit(enlarging, monkeypatch):
    monkeypatch.setattr(enlarging.handler, "max_pixels", 100 * 80)
    allowed, refused = enlarging(raw(encoded(noise(25, 20))), raw(encoded(noise(26, 20))))
    assert (allowed.status, refused.status) == (200, 413)


def test_a_side_too_long_for_the_format_is_refused_before_the_work(enlarging, monkeypatch):
    monkeypatch.setattr(enlarging.handler, "run", None)
    (response,) = enlarging(raw(encoded(noise(4100, 3)), ("Accept", "image/webp")))
    assert response.error == (413, "ImageTooLarge")
    assert response.detail.endswith("the limit is 16383 a side in webp: send 4095×2 at most")


# ---- Collections


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    styles = {name: style_network(seed) for seed, name in enumerate(("dots", "lines"))}
    networks = styles | {"larger": enlarging_network()}
    folder = unpacked(tmp_path_factory.mktemp("collection"), "collection", networks)
    with serving(folder, "collection") as served:
        yield folder, served


@pytest.mark.slow
def test_each_request_of_a_batch_names_its_style_and_factor(collection):
    folder, served = collection
    dots, lines, larger = (perceptual.load(folder / f"{n}.safetensors", "cpu") for n in ("dots", "lines", "larger"))
    responses = served(
        raw(PHOTO, AS_PNG, ("X-Style", "dots")),
        form(AS_PNG, data=PHOTO, style="lines", strength="0.5"),
        raw(PHOTO, AS_PNG, ("X-Scale", "4"), ("X-Histogram-Matching", "off")),
        raw(PHOTO, AS_PNG, ("X-Scale", "4"), ("X-Style", "dots")),
        raw(PHOTO, AS_PNG, ("X-Style", "dots"), ("X-Strength", "0")),
    )
    photo = bytes(PHOTO)
    expected = [
        dots.stylize(photo),
        lines.stylize(photo, strength=0.5),
        larger.upscale(photo, histogram_matching=False),
        larger.upscale(dots.stylize(photo)),  # one after the other, in one request
        Image.open(BytesIO(photo)),
    ]
    for response, picture in zip(responses, expected, strict=True):
        assert response.image.size == picture.size
        assert np.abs(np.array(response.image).astype(int) - np.array(picture)).mean() <= 1


@pytest.mark.parametrize(
    ("headers", "error", "detail"),
    [
        ([], (422, "InvalidOption"), "say which style: dots, lines; or scale: 4"),
        ([("X-Style", "waves")], (404, "UnknownStyle"), "there is no style 'waves' here; the styles are: dots, lines"),
        ([("X-Style", "larger")], (404, "UnknownStyle"), "there is no style 'larger'"),
        (
            [("X-Style", "dots"), ("X-Scale", "8")],
            (422, "InvalidOption"),
            "scale: this collection enlarges 4 times, not 8",
        ),
        ([("X-Scale", "3")], (422, "InvalidOption"), "scale: expected 2, 4 or 8, got '3'"),
        ([("X-Scale", "4"), ("X-Max-Size", "16")], (422, "InvalidOption"), "max-size: has no effect without a style"),
        ([("X-Style", "dots"), ("X-Histogram-Matching", "off")], (422, "InvalidOption"), "has no effect without scale"),
    ],
)
def test_what_a_collection_does_not_hold(collection, headers, error, detail):
    wrong, right = collection[1](raw(PHOTO, *headers), raw(PHOTO, ("X-Style", "dots")))
    assert wrong.error == error
    assert detail in wrong.detail
    assert right.status == 200


def test_a_collection_describes_itself_beside_a_picture(collection):
    described, picture = collection[1](raw(b"", ("describe", "True")), raw(PHOTO, ("X-Style", "dots")))
    told = json.loads(described.body)
    assert (described.status, picture.status) == (200, 200)
    assert told["styles"] == [{"name": "dots"}, {"name": "lines"}] and told["scales"] == [4]
    assert {"scale", "style", "histogram-matching"} <= {each["name"] for each in told["options"]}


def test_the_limit_counts_what_a_factor_makes(collection, monkeypatch):
    monkeypatch.setattr(collection[1].handler, "max_pixels", 24 * 20 * 4)
    plain, enlarged = collection[1](raw(PHOTO, ("X-Style", "dots")), raw(PHOTO, ("X-Style", "dots"), ("X-Scale", "4")))
    assert (plain.status, enlarged.error) == (200, (413, "ImageTooLarge"))


def test_what_is_reduced_first_is_not_too_large_to_be_enlarged(collection):
    photo = encoded(noise(5000, 4))  # 20,000 pixels wide, in webp over the limit
    reduced, whole = collection[1](
        raw(photo, ("Accept", "image/webp"), ("X-Style", "dots"), ("X-Scale", "4"), ("X-Max-Size", "100")),
        raw(photo, ("Accept", "image/webp"), ("X-Style", "dots"), ("X-Scale", "4")),
    )
    assert reduced.image.size == (400, 4)
    assert whole.error == (413, "ImageTooLarge")


def test_a_tile_for_a_style_is_not_too_large_for_what_enlarges(collection, monkeypatch):
    asked = []
    upscaler = collection[1].handler.upscalers[4]
    upscale = upscaler.upscale_pictures
    monkeypatch.setattr(upscaler, "upscale_pictures", lambda p, o, w: asked.append(o[0].tile) or upscale(p, o, w))
    for tile, run in (("2048", 1024), ("512", 512)):
        collection[1](raw(PHOTO, ("X-Scale", "4"), ("X-Tile", tile)))
        assert asked[-1] == run


def test_large_photos_are_enlarged_by_the_collection_s_own_network(collection):
    handler = collection[1].handler
    assert handler.upscaler() is handler.upscalers[4]


@pytest.mark.slow
def test_a_style_has_the_name_that_is_told(tmp_path):
    networks = {"file": style_network(0)}
    folder = unpacked(tmp_path, "collection", networks, {"styles": [{"name": "waves"}]})
    with serving(folder, "collection") as served:
        told, picture, other = served(
            raw(b"", ("describe", "True")), raw(PHOTO, ("X-Style", "waves")), raw(PHOTO, ("X-Style", "file"))
        )
    assert json.loads(told.body)["styles"] == [{"name": "waves"}]
    assert (picture.status, other.error) == (200, (404, "UnknownStyle"))


@pytest.mark.slow
def test_an_only_style_has_the_name_of_its_file(tmp_path):
    folder = unpacked(tmp_path, "style_transfer", {"file": style_network(0)}, {"name": "waves"})
    with serving(folder, "style_transfer") as served:
        told, picture, other = served(
            raw(b"", ("describe", "True")), raw(PHOTO, ("X-Style", "file")), raw(PHOTO, ("X-Style", "waves"))
        )
    assert json.loads(told.body)["styles"] == [{"name": "file"}]
    assert (picture.status, other.error) == (200, (404, "UnknownStyle"))


def test_warm_up_runs_every_network_of_a_collection(collection):
    options = list(collection[1].handler.warm_up_options())
    wanted = [((("dots", 1.0),), None), ((("lines", 1.0),), None), (None, 4)]
    assert [(each.style, each.scale) for each in options] == wanted


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """An archive of three styles at two sizes in one network, and the network's predictor."""
    network = style_network(styles=3, sizes=2)
    torch.nn.init.uniform_(network.styles, 0.2, 2)
    names = {"styles": [{"name": name} for name in ("dots", "lines", "waves")]}
    folder = unpacked(tmp_path_factory.mktemp("many"), "style_transfer", {"styles": network}, names)
    with serving(folder, "style_transfer") as served:
        yield perceptual.load(folder / "styles.safetensors", "cpu"), served


def test_requests_name_and_mix_styles_each_its_own(many):
    predictor, served = many
    wishes = [{"style": "dots"}, {"style": "lines:3,waves:1"}, {"style": "waves", "stroke": 1}]
    headers = [
        [("X-Style", "dots")],
        [("X-Style", "lines:3,waves:1")],
        [("X-Style", "waves"), ("X-Stroke", "1")],
    ]
    responses = served(*(raw(PHOTO, AS_PNG, *each) for each in headers))
    for response, wish in zip(responses, wishes, strict=True):
        expected = np.array(predictor.stylize(bytes(PHOTO), **wish)).astype(int)
        assert np.abs(np.array(response.image) - expected).mean() <= 1


@pytest.mark.parametrize(
    ("headers", "error", "detail"),
    [
        ([], (422, "InvalidOption"), "style is missing; the styles are: dots, lines, waves"),
        ([("X-Style", "foam")], (404, "UnknownStyle"), "there is no style 'foam' here; the styles are: dots, lines"),
        ([("X-Style", "dots:0")], (422, "InvalidOption"), "style: expected a style's name, or up to 32 with shares"),
        ([("X-Style", "dots"), ("X-Stroke", "2")], (422, "InvalidOption"), "stroke: expected a number from 0 to 1"),
    ],
)
def test_a_wrong_style_is_that_request_s_error(many, headers, error, detail):
    wrong, right = many[1](raw(PHOTO, *headers), raw(PHOTO, ("X-Style", "dots")))
    assert wrong.error == error and detail in wrong.detail
    assert right.status == 200
