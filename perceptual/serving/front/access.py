"""Tokens: the front's own for clients, and TorchServe's, which only the front uses.

A token of TorchServe becomes invalid when TorchServe ends or another token is issued. A token of the front contains its
time of expiry and a signature. It is valid for an hour, even if TorchServe restarts.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from aiohttp import web

from ...files import write_atomically
from .replies import Refusal, unavailable

LIFETIME = 3600  # seconds
KINDS = ("inference", "management")

Kind = Literal["inference", "management"]


class Access:
    """Issues and checks tokens. The newest are in a key file of TorchServe's format, readable by this user alone.

    Args:
        file: The key file to write.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.secret = secrets.token_bytes(32)
        self.newest: dict[str, Any] = {"API": {"key": secrets.token_urlsafe(24)}}
        for kind in KINDS:
            self.issue(kind)

    def issue(self, kind: str) -> dict[str, str]:
        """Issues a token and writes it to the key file; those issued before stay valid until they expire."""
        expiry = int(time.time()) + LIFETIME
        until = datetime.fromtimestamp(expiry, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.newest[kind] = {"key": self.signed(f"{kind}.{expiry}"), "expiration time": until}
        write_atomically(self.file, json.dumps(self.newest, indent=2).encode(), mode=0o600)
        token: dict[str, str] = self.newest[kind]
        return token

    def signed(self, text: str) -> str:
        """A text with its signature."""
        return f"{text}.{signature(self.secret, text)}"

    def check(self, request: web.Request, kind: Kind) -> None:
        """Raises a refusal unless a request has a valid token of this kind."""
        token = bearer(request)
        text, _, _ = token.rpartition(".")
        named, _, expiry = text.partition(".")
        genuine = hmac.compare_digest(self.signed(text), token)
        if not genuine or named != kind or int(expiry) < time.time():
            raise unauthorized()

    def check_api_key(self, request: web.Request) -> None:
        """Raises a refusal unless a request has the API key, which is required to issue tokens."""
        if not hmac.compare_digest(self.newest["API"]["key"], bearer(request)):
            raise unauthorized()


def signature(secret: bytes, text: str) -> str:
    """The HMAC-SHA-256 of a text, in base64 for URLs."""
    digest = hmac.digest(secret, text.encode(errors="surrogateescape"), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def bearer(request: web.Request) -> str:
    """The token of a request, or nothing."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.isascii() else ""


def unauthorized() -> Refusal:
    """The reply to a missing or invalid token, with TorchServe's message."""
    message = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
    return Refusal(401, "token", message)


class InnerTokens:
    """TorchServe's own tokens, from the key file that it writes when it starts."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.written = 0
        self.keys: dict[str, Any] = {}

    def header(self, kind: Kind) -> dict[str, str]:
        """The header that authorizes the front. Raises a refusal while TorchServe has not written the file."""
        try:
            written = self.file.stat().st_mtime_ns
            if written != self.written:
                self.keys, self.written = json.loads(self.file.read_text()), written
            return {"Authorization": f"Bearer {self.keys[kind]['key']}"}
        except (OSError, ValueError, KeyError):
            raise unavailable("torchserve", "TorchServe is starting") from None
