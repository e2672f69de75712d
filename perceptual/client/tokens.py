"""The tokens of a server: what signs requests to it."""

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
    """Signs requests with the token in a server's key file, and renews it before it expires.

    Args:
        key_file: The ``key_file.json`` in TorchServe's working directory.
        kind: Which API the token is for.
        management_url: Where tokens are renewed, such as ``http://127.0.0.1:8081``.
    """

    def __init__(self, key_file: str | Path, kind: Literal["inference", "management"], management_url: str) -> None:
        self.key_file = Path(key_file)
        self.kind = kind
        self.management_url = management_url

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Signs a request, as :class:`requests.auth.AuthBase` says."""
        request.headers["Authorization"] = f"Bearer {self.valid()}"
        request.register_hook("response", self.sign_again)
        return request

    def sign_again(self, response: Response, **arguments: Any) -> Response:
        """Repeats a refused request with the newer token.

        Whoever shares the key file may have renewed the token meanwhile, which ends the old one immediately.
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
        """A key that lets one browser in to the server's page; empty if none is needed. Raises ServerError."""
        key: str = self.ask_for("page").json()["page"]["key"]
        return key

    def ask_for(self, kind: str) -> Response:
        """The server's reply when a token is asked for. Raises ServerError as :meth:`valid`."""
        headers = {"Authorization": f"Bearer {self.read()['API']['key']}"}
        with Client(self.management_url, timeout=10.0) as client:
            return client.send("GET", "/token", params={"type": kind}, headers=headers)

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
            keys: dict[str, Any] = json.loads(self.key_file.read_text())
            return keys
        except OSError as error:
            raise ServerError(f"cannot read the server's key file {self.key_file}: {error.strerror}") from error
