"""A connection to one API of a running server: its requests are signed, and replies that tell of failure are errors."""

import json
import time
from collections.abc import Generator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import httpx

from .. import errors
from ..errors import InputError, PerceptualError, ServerError

KINDS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
RENEW_WITHIN = 120.0  # seconds before a token's expiry

ADVICE = {
    403: "make another version the default first: perceptual models set-default",
    404: "perceptual models list shows what there is, and perceptual models register adds to it",
    405: "the server's model API is off: set enable_model_api=true in its config.properties",
    409: "unregister it first, or give the new one another --version",
    500: "the reason is in the server's log",
    503: "its workers are busy or down: try again, or scale them up",
    507: "out of memory: send a smaller picture, or set max_size",
}


class Client:
    """A connection that turns failures into errors of this package."""

    def __init__(self, url: str, auth: httpx.Auth | None = None, timeout: float = 10.0) -> None:
        self.url = url
        socket = url.removeprefix("unix:") if url.startswith("unix:") else None
        # No proxy from the environment: the server is on this machine or nearby.
        self.http = httpx.Client(
            base_url="http://localhost" if socket else url,
            auth=auth,
            timeout=httpx.Timeout(timeout, connect=5.0),
            transport=httpx.HTTPTransport(uds=socket) if socket else None,
            trust_env=False,
        )

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self.http.close()

    def send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Sends one request. Raises InputError or ServerError unless the reply is a 2xx."""
        try:
            response = self.http.request(method, path, **arguments)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ServerError(f"no server answers at {self.url} ({error}); start one: perceptual serve") from error
        except httpx.TimeoutException as error:
            # TorchServe lets requests wait without limit while a worker restarts.
            limit = self.http.timeout.read
            raise ServerError(
                f"no answer from {self.url} within {limit:g} s; perceptual status shows if workers are busy or down"
            ) from error
        except httpx.TransportError as error:
            raise ServerError(f"the connection to {self.url} broke: {error}") from error
        if not response.is_success:
            raise error_of(response)
        return response


class Tokens(httpx.Auth):
    """Signs requests with the token in a server's key file, and renews it before it expires.

    Args:
        key_file: The ``key_file.json`` in TorchServe's working directory.
        kind: Which API the token is for.
        management_url: Where tokens are renewed, such as ``http://127.0.0.1:8081``.
    """

    requires_response_body = True

    def __init__(self, key_file: str | Path, kind: Literal["inference", "management"], management_url: str) -> None:
        self.key_file = Path(key_file)
        self.kind = kind
        self.management_url = management_url

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See :class:`httpx.Auth`."""
        key = self.valid()
        request.headers["Authorization"] = f"Bearer {key}"
        response = yield request
        # Whoever shares the key file may have renewed the token meanwhile, which ends the old one at once.
        if is_token_refused(response) and (newer := self.valid()) != key:
            request.headers["Authorization"] = f"Bearer {newer}"
            yield request

    def valid(self) -> str:
        """The token, renewed first if it is about to expire.

        Raises:
            ServerError: There is no key file, or the server does not renew the token.
        """
        if self.seconds_left() < RENEW_WITHIN:
            headers = {"Authorization": f"Bearer {self.read()['API']['key']}"}
            with Client(self.management_url, timeout=10.0) as client:  # TorchServe writes it into the key file
                client.send("GET", "/token", params={"type": self.kind}, headers=headers)
        key: str = self.read()[self.kind]["key"]
        return key

    def seconds_left(self) -> float:
        """Time until the token expires."""
        # Nanoseconds and "Z", which Python 3.10 cannot parse, are cut off.
        expiry = datetime.fromisoformat(self.read()[self.kind]["expiration time"][:19]).replace(tzinfo=timezone.utc)
        return (expiry - datetime.now(timezone.utc)).total_seconds()

    def read(self) -> dict[str, Any]:
        """The key file. Raises ServerError if there is none, or it is something else."""
        for _ in range(20):
            with suppress(ValueError, TypeError, KeyError):  # TorchServe is just rewriting it, in place
                keys = self.read_once()
                if all((keys["API"]["key"], keys[self.kind]["key"], keys[self.kind]["expiration time"])):
                    return keys
            time.sleep(0.05)
        raise ServerError(f"{self.key_file} is not a key file of TorchServe")

    def read_once(self) -> dict[str, Any]:
        """The key file as it is at this moment."""
        try:
            return json.loads(self.key_file.read_text())
        except OSError as error:
            raise ServerError(f"cannot read the server's key file {self.key_file}: {error.strerror}") from error


def error_of(response: httpx.Response) -> PerceptualError:
    """The error that a reply stands for: our handlers' have ``error`` and ``detail``, TorchServe's a ``message``."""
    try:
        reply = dict(response.json())
    except (TypeError, ValueError):
        reply = {}
    if "detail" in reply:
        return KINDS.get(str(reply.get("error")), ServerError)(reply["detail"])
    if is_token_refused(response):
        return ServerError(
            "the server requires a valid token: name its key file (--key-file; in Python auth=Tokens(…)), "
            "or, if it runs on this machine, leave --url out (in Python use find_server())"
        )
    if response.status_code == 413:
        return InputError("the photo has more bytes than the server takes (max_request_size in its config.properties)")
    message = str(reply.get("message") or f"HTTP {response.status_code} {response.reason_phrase}")
    advice = ADVICE.get(response.status_code)
    return ServerError(f"{message}; {advice}" if advice else message)


def is_token_refused(response: httpx.Response) -> bool:
    """Whether a token was missing, wrong or expired: 401, or 400 from a bare TorchServe."""
    return response.status_code in (400, 401) and "InvalidKeyException" in response.text
