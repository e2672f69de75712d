"""The tokens that authorize requests to a server."""

import json
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from requests import PreparedRequest, Response
from requests.auth import AuthBase

from ..errors import ServerError
from .connection import Client, is_token_refused

RENEW_WITHIN = 120.0  # seconds before a token's expiry


class Tokens(AuthBase):
    """Authorizes requests with the token in a server's key file, and renews it before it expires.

    Args:
        key_file: The ``key_file.json`` in TorchServe's working directory.
        kind: Which API the token is for.
        management_url: Address of the API that renews tokens, such as ``http://127.0.0.1:8081``.
    """

    def __init__(self, key_file: str | Path, kind: Literal["inference", "management"], management_url: str) -> None:
        self.key_file = Path(key_file)
        self.kind = kind
        self.management_url = management_url

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Adds the header; see :class:`requests.auth.AuthBase`."""
        request.headers["Authorization"] = f"Bearer {self.valid()}"
        request.register_hook("response", self.retry_with_newer)
        return request

    def retry_with_newer(self, response: Response, **arguments: Any) -> Response:
        """Repeats a refused request if the key file has a newer token.

        Another program with the same key file may have renewed the token, which invalidates the old one immediately.
        """
        newer = f"Bearer {self.valid()}" if is_token_refused(response) else None
        if newer in (None, response.request.headers["Authorization"]):
            return response
        request = response.request.copy()
        request.headers["Authorization"] = newer
        return response.connection.send(request, **arguments)

    def valid(self) -> str:
        """The token, renewed first if it is about to expire.

        Raises:
            ServerError: There is no key file, or the server does not renew the token.
        """
        if self.seconds_left() < RENEW_WITHIN:
            self.ask_for(self.kind)  # TorchServe writes it into the key file
        key: str = self.read()[self.kind]["key"]
        return key

    def page_key(self) -> str:
        """A key for one browser to the server's page; empty if none is needed. Raises ServerError."""
        key: str = self.ask_for("page").json()["page"]["key"]
        return key

    def ask_for(self, kind: str) -> Response:
        """Requests a new token, or a key for the page. Raises ServerError as :meth:`valid`."""
        headers = {"Authorization": f"Bearer {self.read()['API']['key']}"}
        with Client(self.management_url, timeout=10.0) as client:
            return client.send("GET", "/token", params={"type": kind}, headers=headers)

    def seconds_left(self) -> float:
        """Time until the token expires."""
        # Nanoseconds and "Z", which Python 3.10 cannot parse, are cut off.
        expiry = datetime.fromisoformat(self.read()[self.kind]["expiration time"][:19]).replace(tzinfo=timezone.utc)
        return (expiry - datetime.now(timezone.utc)).total_seconds()

    def read(self) -> dict[str, Any]:
        """The content of the key file. Raises ServerError if it is missing or not a key file."""
        for _ in range(20):
            with suppress(ValueError, TypeError, KeyError):  # TorchServe is rewriting it, not atomically
                keys = self.read_once()
                if all((keys["API"]["key"], keys[self.kind]["key"], keys[self.kind]["expiration time"])):
                    return keys
            time.sleep(0.05)
        raise ServerError(f"{self.key_file} is not a key file of TorchServe")

    def read_once(self) -> dict[str, Any]:
        """The current content of the key file. Raises ServerError if it cannot be read."""
        try:
            keys: dict[str, Any] = json.loads(self.key_file.read_text())
            return keys
        except OSError as error:
            raise ServerError(f"cannot read the server's key file {self.key_file}: {error.strerror}") from error
