"""The base class of the TorchServe handlers: answers each request of a batch with a picture or an error.

If a handler raises an exception, TorchServe fails the whole batch. If a reason phrase is not ASCII, a header has a
newline or the list of replies has the wrong length, it hangs or restarts the worker. So errors are caught for each
request, and no text from a client is put into a status or header.
"""

import ctypes
import json
import logging
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch

from ..errors import ImageTooLarge, InvalidOption, PerceptualError, WeightsError
from ..inference import images
from ..inference.codecs.limits import reduced_size
from ..inference.codecs.process import Decoder
from ..inference.images import READABLE, Limits, Picture
from ..inference.large import is_large
from ..inference.metadata import facts_of_styles
from ..inference.predictor import LEAST_TILE, Predictor, load
from ..options import check_alone
from ..settings import Integer, described, parse, settings_of
from .measure import Meter, Record, Watch, waited
from .pace import MAX_SECONDS, SHARE, Pace, allowed, most_pixels
from .parsing import choose_format, find_image, option_values

T = TypeVar("T")

MAX_TILE = 2048  # pixels
MAX_REPLY = 300_000_000  # bytes; a little below the max_response_size of config.properties
RESPONSE_TIMEOUT = 120  # seconds for a batch; TorchServe's default
IN_BANDS = 3.3  # time in bands divided by time in one pass, for style on OpenVINO; 2.5 on PyTorch
MEASUREMENTS = 2  # of a network's pace when the worker starts
TRIM_AFTER = 50  # requests, after which memory is trimmed; trimming takes milliseconds
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """A parsed request: the decoded picture, its options, and the format of the reply."""

    picture: Picture
    options: Any
    format: str
    record: Record


@dataclass(frozen=True)
class Reply:
    """The reply to one request; ``outcome`` is the name of the error, or ``ok``."""

    status: int
    media_type: str
    body: bytes
    outcome: str = "ok"


class ImageHandler(ABC):
    """Answers each request of a batch with a picture or with its own error.

    A subclass defines the options of its task and runs it. By default it loads the one safetensors file of the archive.
    From the model's yaml configuration it reads ``max_pixels``, ``max_seconds``, ``max_tile``, ``max_reply``,
    ``warm_up``, ``engine``, ``maxWorkers`` and ``responseTimeout``.
    """

    options: ClassVar[type[Any]]
    predictor: Predictor
    networks: dict[str, Predictor]  # all loaded networks, by file name
    answered = 0  # requests since memory was trimmed

    @abstractmethod
    def run(self, pictures: Sequence[Picture], options: Sequence[Any], watch: Watch) -> list[Picture]:
        """Runs the task: returns one picture for each, in order. An exception fails the whole batch."""

    def initialize(self, context: Any) -> None:
        """Loads the archive's networks, on the GPU that TorchServe assigned to this worker, if any.

        Raises:
            WeightsError: The archive's weights are damaged, or not as many as expected.
        """
        self.meter = Meter(context)
        self.decoder = Decoder()
        properties = context.system_properties
        config = context.model_yaml_config or {}
        self.max_pixels = int(config.get("max_pixels", images.MAX_PIXELS))
        self.max_reply = int(config.get("max_reply", MAX_REPLY))
        gpu = properties.get("gpu_id")
        on_gpu = gpu is not None and torch.cuda.is_available()
        if not on_gpu:
            share_cores(config.get("maxWorkers", 1))
        engine = str(config.get("engine", "auto"))
        self.load(Path(properties["model_dir"]), f"cuda:{gpu}" if on_gpu else "cpu", engine)
        self.max_tile = int(config.get("max_tile", MAX_TILE))
        self.max_seconds = float(config.get("max_seconds", MAX_SECONDS))
        self.batch_seconds = SHARE * float(config.get("responseTimeout", RESPONSE_TIMEOUT))
        self.paces: dict[Predictor, Pace] = {}
        sizes = [parse_size(each) for each in config.get("warm_up", ())]
        if sizes and not on_gpu:
            sizes += [max(sizes, key=math.prod)] * MEASUREMENTS
        for options in self.warm_up_options():
            for width, height in sizes:
                self.run_timed(Picture(torch.zeros(3, height, width, dtype=torch.uint8)), options, Watch())

    def load(self, folder: Path, device: str, engine: str) -> None:
        """Loads the networks of the unpacked archive."""
        file = find_archived_weights(folder)
        self.predictor = load(file, device, engine)
        self.networks = {file.stem: self.predictor}

    def warm_up_options(self) -> Iterable[Any]:
        """Options that together run every network."""
        return [self.options()]

    def networks_of(self, options: Any) -> list[Predictor]:
        """The networks that a request runs, one after the other."""
        return [self.predictor]

    def paces_of(self, options: Any) -> list[Pace]:
        """The paces of the networks that a request runs; none on a GPU, where memory is the limit."""
        on_cpu = (each for each in self.networks_of(options) if each.device.type == "cpu")
        return [self.paces.setdefault(each, new_pace(each)) for each in on_cpu]

    def sized(self, options: Any) -> bool:
        """Whether a request's picture is run at its own size even if it is large."""
        return True

    def runs_at_own_size(self, picture: Picture, options: Any) -> bool:
        """Whether the network runs on all pixels of a picture; otherwise it runs at a smaller size."""
        return self.sized(options) or not is_large(picture)

    def scale_of(self, options: Any) -> int:
        """How many times larger the result of a request will be. Raises InputError if there is no network for it."""
        return self.predictor.network.scale

    def handle(self, data: Sequence[Any] | None, context: Any) -> list[bytes]:
        """Answers a batch, as TorchServe calls it.

        Args:
            data: One row per request: its form's fields, or a raw body as field ``body``.
            context: TorchServe's context; the requests' headers come from it, statuses and content types go to it.

        Returns:
            One body per row: the picture, or JSON ``{"error": …, "detail": …}``.
        """
        rows = data or []
        end = time.perf_counter() + self.batch_seconds
        records = [self.meter.begin(context.get_request_id(index)) for index in range(len(rows))]
        requests = [
            attempt(self.parse_request, row, context, index, record)
            for index, (row, record) in enumerate(zip(rows, records, strict=True))
        ]
        results = iter(self.run_all([request for request in requests if isinstance(request, Request)], end))
        replies = [
            request if isinstance(request, Reply) else self.answer(request, next(results)) for request in requests
        ]
        for index, (record, reply) in enumerate(zip(records, replies, strict=True)):
            context.set_response_status(reply.status, HTTPStatus(reply.status).phrase, idx=index)
            context.set_response_content_type(index, reply.media_type)
            if record.stages:
                context.set_response_header(index, "Server-Timing", record.server_timing())
            self.meter.emit(record, reply.status, reply.outcome, len(reply.body))
        self.answered += len(replies)
        if self.answered >= TRIM_AFTER:
            self.answered = 0
            trim_memory()
        return [reply.body for reply in replies]

    def parse_request(self, row: Any, context: Any, index: int, record: Record) -> Request | Reply:
        """Parses one request, or answers a request for a description.

        The image is decoded last, as this is the most expensive step.

        Raises:
            InputError: The request is invalid.
        """
        headers = {name.lower(): value for name, value in context.get_all_request_header(index).items()}
        if headers.get("describe") == "True":  # TorchServe's form of GET /models/NAME?customized=true
            return Reply(200, "application/json", json.dumps(self.describe()).encode())
        record.stages.update(waited(headers.get("x-request-start")))
        data = find_image(row)
        values = option_values(headers, row)
        check_alone(values, self.options)
        options = parse(self.options, values)
        if options.tile and options.tile > self.max_tile:
            raise InvalidOption(f"tile: expected {Integer(LEAST_TILE, self.max_tile)}, got '{options.tile}'")
        scale = self.scale_of(options)
        format = options.format or choose_format(headers.get("accept", ""))
        record.bytes = len(data)
        with Watch(record).stage("decode"):
            picture = images.from_pixels(self.decoder.decode(data, self.limits_of(options, scale, format)))
        record.pixels = picture.rgb.shape[-2] * picture.rgb.shape[-1]
        return Request(picture, options, format, record)

    def describe(self) -> dict[str, Any]:
        """What a request may contain: styles, factors of enlargement, options, formats and limits."""
        upscalers = [each.network for each in self.networks.values() if each.network.task == "super-resolution"]
        return {
            "styles": [
                facts
                for name, each in self.networks.items()
                if each.network.task == "style"
                for facts in facts_of_styles(each.metadata, name)
            ],
            "scales": sorted(each.scale for each in upscalers),
            "blended": sorted(each.scale for each in upscalers if each.config["blended"]),
            "options": [described(each) for each in settings_of(self.options)],
            "formats": sorted(READABLE),
            "limits": {
                "max_pixels": self.max_pixels,
                "max_seconds": self.max_seconds,
                "max_tile": self.max_tile,
                "max_reply": self.max_reply,
            },
        }

    def limits_of(self, options: Any, scale: int, format: str) -> Limits:
        """The limits for a request's picture."""
        worked = most_pixels(self.paces_of(options), self.max_seconds, smaller=not self.sized(options))
        return Limits(self.max_pixels, scale, format, getattr(options, "max_size", None), worked)

    def run_all(self, requests: Sequence[Request], end: float) -> list[Picture | Reply]:
        """Runs requests as one batch or, if that fails, one by one, so that only the bad ones fail.

        Args:
            requests: The valid requests of the batch.
            end: Deadline of the batch, in seconds of ``time.perf_counter``.
        """
        if len(requests) > 1:
            try:
                watch = self.watch(requests, end)
                return list(self.run([each.picture for each in requests], [each.options for each in requests], watch))
            except Exception as error:
                end_if_gpu_is_lost(error)
                logger.exception("a batch of %d failed; running its requests one by one", len(requests))
        return [attempt(self.run_one, request, end) for request in requests]

    def run_one(self, request: Request, end: float) -> Picture:
        """Runs a batch of one."""
        return self.run_timed(request.picture, request.options, self.watch([request], end))

    def run_timed(self, picture: Picture, options: Any, watch: Watch) -> Picture:
        """Runs a batch of one, and measures the network's pace if the request asks for one network alone."""
        begin = time.perf_counter()
        result = self.run([picture], [options], watch)[0]
        paces = self.paces_of(options)
        if len(paces) == 1:
            seconds, smaller = time.perf_counter() - begin, not self.runs_at_own_size(picture, options)
            paces[0].measure(worked_pixels(picture, options), seconds, smaller=smaller)
        return result

    def watch(self, requests: Sequence[Request], end: float) -> Watch:
        """A watch for requests that start now. Its deadline follows from their sizes, and is at most the batch's."""
        times = sum(self.seconds_for(each.picture, each.options) for each in requests)
        return Watch(*(each.record for each in requests), deadline=min(time.perf_counter() + times, end))

    def seconds_for(self, picture: Picture, options: Any) -> float:
        """Seconds that work on a picture may take."""
        smaller = not self.runs_at_own_size(picture, options)
        return allowed(self.paces_of(options), worked_pixels(picture, options), self.max_seconds, smaller=smaller)

    def answer(self, request: Request, result: Picture | Reply) -> Reply:
        """The reply to a request that was run."""
        return result if isinstance(result, Reply) else attempt(self.picture_reply, request, result)

    def picture_reply(self, request: Request, picture: Picture) -> Reply:
        """The encoded picture. Raises ImageTooLarge if it is more than the server may send."""
        with Watch(request.record).stage("encode"):
            body = images.encode(picture, request.format, request.options.quality)
        if len(body) > self.max_reply:
            raise ImageTooLarge(
                f"the result has {len(body):,} bytes as {request.format}, and the server sends {self.max_reply:,} at "
                f"most: {'send a smaller picture' if request.format == 'jpeg' else 'ask for jpeg'}"
            )
        return Reply(200, f"image/{request.format}", body)


def attempt(function: Callable[..., T], *arguments: Any) -> T | Reply:
    """A function's result, or the error reply if it raises."""
    try:
        return function(*arguments)
    except PerceptualError as error:
        return error_reply(error.status, error.name, str(error))
    except Exception as error:
        end_if_gpu_is_lost(error)
        logger.exception("a request failed")
        return error_reply(500, "InternalError", "the server failed on this request; see its model_log.log")


def error_reply(status: int, error: str, detail: str) -> Reply:
    """The JSON form of an error."""
    return Reply(status, "application/json", json.dumps({"error": error, "detail": detail}).encode(), error)


def end_if_gpu_is_lost(error: Exception) -> None:
    """Ends the worker process after a CUDA error, as every later CUDA call would fail; TorchServe starts another."""
    if "CUDA error" in str(error):
        logger.critical("the GPU fails; ending this worker", exc_info=error)
        logging.shutdown()
        os._exit(1)


def trim_memory() -> None:
    """Returns free heap memory to the system; pictures of many sizes fragment it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim:
        trim(0)


def worked_pixels(picture: Picture, options: Any) -> int:
    """Pixels of a picture after ``max_size`` has reduced it."""
    height, width = picture.rgb.shape[-2:]
    return math.prod(reduced_size(width, height, getattr(options, "max_size", None)))


def new_pace(predictor: Predictor) -> Pace:
    """A pace for a network, without a measurement yet."""
    network = predictor.network
    return Pace((network.tile / network.scale) ** 2, IN_BANDS if network.reach is None else 1.0)


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of ``640x480``. Raises ValueError for anything else."""
    width, height = map(int, str(text).split("x"))
    return width, height


def find_archived_weights(folder: Path) -> Path:
    """The one weights file of an unpacked archive. Raises WeightsError if there is none, or several."""
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise WeightsError(f"an archive has exactly one .safetensors file; this one has {names}")
    return files[0]


def share_cores(workers: int) -> None:
    """Divides the cores among the workers, unless OMP_NUM_THREADS is set."""
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))
