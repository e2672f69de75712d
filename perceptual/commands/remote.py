"""Options of ``stylize`` and ``upscale`` that send the photos to a server."""

import os
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InvalidOption, ModelPaused, PerceptualError
from .arguments import report

KEY = "PERCEPTUAL_KEY"
PATIENCE = 300.0  # seconds for which a photo is sent again to a busy server

Send = Callable[[bytes, str], bytes]


def add_remote(parser: Any) -> None:
    """Adds the options that send photos to a server."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "--url",
        help="send the photos to the server at this inference address, such as https://example.org or "
        f"http://127.0.0.1:8080, each again for {PATIENCE / 60:g} minutes at most if the server is busy; "
        "--model is then a model's name there",
    )
    group.add_argument("--key", help=f"the key of this client, for a proxy that needs one; default: ${KEY}")


def sender(args: Namespace, model: str, options: Mapping[str, Any]) -> Send:
    """A function that maps a photo's content and a format to the result's content, by a request to a server.

    If the server is busy, the photo is sent again after the time in its reply.

    Args:
        args: The command line, with the options of :func:`add_remote`.
        model: The name of a model, or ``name/version``.
        options: By option name.

    Raises:
        InputError: The address is malformed, or that of a model.
        InvalidOption: An option for networks in this process is given.
    """
    from ..client.addresses import server_running_at
    from ..client.inference import InferenceClient

    if args.device or args.engine != "auto":
        raise InvalidOption("--device and --engine do not work with --url")
    running = server_running_at(args.url)
    key = args.key or os.environ.get(KEY)
    client = running.inference() if running and not key else InferenceClient(args.url, key)
    return patient(lambda photo, format: client.predict(photo, model, {**options, "format": format}))


def patient(send: Send) -> Send:
    """Sends a photo again after errors with a time to retry after, for at most :data:`PATIENCE` seconds.

    Each error is reported once. A model that was paused is not tried again: that takes whoever paused it.
    """
    told: set[str] = set()

    def send_again(photo: bytes, format: str) -> bytes:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return send(photo, format)
            except PerceptualError as error:
                pause = error.retry_after
                if pause is None or isinstance(error, ModelPaused) or time.monotonic() + pause > end:
                    raise
                if str(error) not in told:
                    told.add(str(error))
                    report(f"{error}; trying again in {pause} s")
                time.sleep(pause)

    return send_again
