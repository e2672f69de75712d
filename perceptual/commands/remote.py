"""Options of ``stylize`` and ``upscale`` that send the photos to a server."""

import os
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InvalidOption

KEY = "PERCEPTUAL_KEY"


def add_remote(parser: Any) -> None:
    """Adds the options that send photos to a server."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "--url",
        help="send the photos to the server at this inference address, such as https://example.org or "
        "http://127.0.0.1:8080; --model is then a model's name there",
    )
    group.add_argument("--key", help=f"the key of this client, for a proxy that needs one; default: ${KEY}")


def sender(args: Namespace, model: str, options: Mapping[str, Any]) -> Callable[[bytes, str], bytes]:
    """A function that maps a photo's content and a format to the result's content, by a request to a server.

    Args:
        args: The command line, with the options of :func:`add_remote`.
        model: The name of a model, or ``name/version``.
        options: By option name.

    Raises:
        InvalidOption: An option is given that says how to run a network here.
    """
    from ..client.addresses import server_running_at
    from ..client.inference import InferenceClient

    if args.device or args.engine != "auto":
        raise InvalidOption("--device and --engine are for networks that run here, not with --url")
    running = server_running_at(args.url)
    key = args.key or os.environ.get(KEY)
    client = running.inference() if running and not key else InferenceClient(args.url, key)
    values = {name: dict(value) if name == "style" else value for name, value in options.items()}
    return lambda photo, format: client.predict(photo, model, {**values, "format": format})
