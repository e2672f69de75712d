"""A connection to one API of a running server; failures become errors of this package."""

import os
import re
from typing import Any, ClassVar, TypeVar

import requests
from requests import PreparedRequest, Response
from requests.auth import AuthBase
from urllib3.exceptions import NewConnectionError

from .. import errors
from ..errors import AlreadyRegistered, InputError, InvalidOption, PerceptualError, ServerError, WorkersFailed
from ..naming import ModelVersion
from .sockets import SocketAdapter

KINDS: dict[str, type[PerceptualError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, PerceptualError)
}
CONNECTING = 5.0  # seconds
FAILED = re.compile(r"Failed to start workers for model (\S+) version: ([^\s;]+)")  # TorchServe's message

ADVICE = {
    401: "it needs a key: give --key, in Python auth=KEY",
    403: "make another version the default first: perceptual models set-default",
    404: "perceptual models list shows the registered models, and perceptual models register adds one",
    405: "the server's model API is off: set enable_model_api=true in its config.properties",
    429: "too many requests: wait a moment, or send fewer at a time",
    409: "unregister it first, or give the new one another --version",
    500: "the reason is in the server's log",
    503: "its workers are busy or down: try again, or scale them up",
    507: "out of memory: send a smaller picture, or set max_size",
}


T = TypeVar("T", bound="Client")


class Key(AuthBase):
    """Authorizes requests with a client's key, for a proxy in front of servers."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Adds the header; see :class:`requests.auth.AuthBase`."""
        request.headers["Authorization"] = f"Bearer {self.key}"
        return request


class Client:
    """A connection that turns failures into errors of this package.

    Attributes:
        example: An address, for errors.
        token_advice: What to do if the server requires a token.

    Args:
        url: The API's address; ``unix:PATH`` for a socket.
        auth: Authorizes the requests; text is a client's key.
        timeout: Seconds to wait for a reply.

    Raises:
        InputError: The address is malformed.
        InvalidOption: The key cannot be sent.
    """

    example: ClassVar[str] = "http://127.0.0.1:8081"
    token_advice: ClassVar[str] = (
        "name its management address and its key file (--key-file; in Python auth=Tokens(…)), "
        "or, if it runs on this machine, leave --url out (in Python use find_server())"
    )

    def __init__(self, url: str, auth: AuthBase | str | None = None, timeout: float = 10.0) -> None:
        if isinstance(auth, str) and not (auth.isascii() and auth.isprintable()):
            raise InvalidOption("the key has other than printable ASCII characters")
        check_address(url, self.example)
        self.url = url
        self.base = url.rstrip("/")
        self.timeout = timeout
        self.session = requests.Session()
        self.session.auth = Key(auth) if isinstance(auth, str) else auth
        self.session.trust_env = False  # no proxy from the environment: the server is on this machine or nearby
        self.session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True  # an empty name would switch it off
        if url.startswith("unix:"):
            self.base = "http://localhost"
            self.session.mount(self.base, SocketAdapter(url.removeprefix("unix:")))

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self.session.close()

    def send(self, method: str, path: str, **arguments: Any) -> Response:
        """Sends one request. Raises InputError or ServerError unless the reply is a 2xx."""
        response = self.request(method, path, **arguments)
        if not 200 <= response.status_code < 300:
            error = error_of(response, self.token_advice)
            error.retry_after = retry_after(response)
            raise error
        return response

    def request(self, method: str, path: str, **arguments: Any) -> Response:
        """Sends one request and returns the reply, whatever its status. Raises ServerError if there is no reply."""
        timeout = (CONNECTING, self.timeout)
        try:
            return self.session.request(method, self.base + path, timeout=timeout, allow_redirects=False, **arguments)
        except requests.ReadTimeout as error:
            # TorchServe queues requests without a time limit while a worker restarts.
            raise ServerError(
                f"no answer from {self.url} within {self.timeout:g} s; "
                "perceptual status shows if workers are busy or down"
            ) from error
        except OSError as error:  # also if there is no file REQUESTS_CA_BUNDLE, for which requests has no class
            if is_refused(error):
                raise ServerError(f"no server answers at {self.url}; start one: perceptual serve") from error
            raise ServerError(f"the connection to {self.url} broke: {error}") from error


def is_refused(error: OSError) -> bool:
    """Whether no connection was made; requests raises the same class if a connection broke."""
    cause = error.args[0] if error.args else None  # urllib3's
    return isinstance(error, requests.ConnectTimeout) or isinstance(getattr(cause, "reason", None), NewConnectionError)


def check_address(url: str, example: str) -> None:
    """Raises InputError unless an address is ``unix:PATH``, or begins with ``http://`` or ``https://`` and has a host.

    Args:
        url: The address.
        example: Another, for the message.
    """
    if url.startswith("unix:"):
        return
    try:
        if not url.lower().startswith(("http://", "https://")):
            raise requests.exceptions.MissingSchema
        PreparedRequest().prepare_url(url, None)
    except requests.RequestException:
        raise InputError(
            f"expected an address such as {example}, got {url!r}: "
            "an address begins with http:// or https://, and a host follows"
        ) from None


def error_of(response: Response, token_advice: str) -> PerceptualError:
    """The error of a reply; our handlers send ``error`` and ``detail``, TorchServe a ``message``."""
    try:
        reply = dict(response.json())
    except (TypeError, ValueError):
        reply = {}
    if "detail" in reply:
        return KINDS.get(str(reply.get("error")), ServerError)(reply["detail"])
    if is_token_refused(response):
        return ServerError(f"the server requires a valid token: {token_advice}")
    if response.status_code == 413:
        return InputError("the photo is larger than the server accepts (max_request_size in its config.properties)")
    message = str(reply.get("message") or f"HTTP {response.status_code} {response.reason}")
    advised = f"{message}; {advice}" if (advice := ADVICE.get(response.status_code)) else message
    if failed := FAILED.search(message):
        return WorkersFailed(advised, ModelVersion(*failed.groups()))
    return AlreadyRegistered(advised) if response.status_code == 409 else ServerError(advised)


def retry_after(response: Response) -> int | None:
    """Seconds after which to try again, if a busy server states them."""
    text = response.headers.get("Retry-After", "") if response.status_code in (429, 503) else ""
    return int(text) if text.isdecimal() else None


def is_token_refused(response: Response) -> bool:
    """Whether a token was missing, wrong or expired: 401, or 400 from a bare TorchServe."""
    return response.status_code in (400, 401) and "InvalidKeyException" in response.text
