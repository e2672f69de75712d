"""Access to the page: by an address with a key that works once, and after that by a cookie.

The page has no token: the front accepts the cookie instead, and it stays valid when tokens expire. Browsers send
cookies with requests from other sites too, so the front accepts it only from the page's own requests.
"""

import hashlib
import hmac
import secrets
import time
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from ...files import write_atomically
from .access import signature
from .replies import Refusal

LIFETIME = 30 * 86_400  # seconds that a cookie is valid; the browser deletes it when it is closed
SECRET = 32  # bytes
MOST_KEYS = 100  # keys that are not used yet


class Visitors:
    """Issues and checks keys and cookies.

    Args:
        file: The secret that signs cookies, so that they outlast a restart; created if missing. Deleting it and
            restarting the server makes all cookies invalid.
    """

    def __init__(self, file: Path) -> None:
        self.secret = kept_secret(file)
        self.name = f"perceptual-{hashlib.sha256(self.secret).hexdigest()[:8]}"  # ports of one host share their cookies
        self.keys: list[str] = []

    def invite(self) -> str:
        """Issues a key for one browser."""
        key = secrets.token_urlsafe(24)
        self.keys = [*self.keys, key][-MOST_KEYS:]
        return key

    def admit(self, key: str) -> bool:
        """Whether a key is valid; it works once."""
        left = [each for each in self.keys if not hmac.compare_digest(each.encode(), key.encode())]
        admitted = len(left) < len(self.keys)
        self.keys = left
        return admitted

    def remember(self, response: web.StreamResponse) -> None:
        """Sets the cookie."""
        expiry = str(int(time.time()) + LIFETIME)
        value = f"{expiry}.{signature(self.secret, expiry)}"
        response.set_cookie(self.name, value, httponly=True, samesite="Strict")

    def knows(self, request: web.BaseRequest) -> bool:
        """Whether a request has a valid cookie."""
        cookie = request.cookies.get(self.name, "")
        if not cookie.isascii():  # aiohttp passes other bytes as lone surrogates
            return False
        expiry, _, signed = cookie.partition(".")
        genuine = hmac.compare_digest(signature(self.secret, expiry).encode(), signed.encode())
        return genuine and int(expiry) >= time.time()

    def let_in(self, request: web.BaseRequest) -> bool:
        """Whether a request has a valid cookie.

        Raises:
            Refusal: It has one, but comes from a page of another site.
        """
        if not self.knows(request):
            return False
        if is_foreign(request):
            raise Refusal(
                403,
                "origin",
                "only requests from the server's own page are accepted",
                error="Forbidden",
            )
        return True


def is_foreign(request: web.BaseRequest) -> bool:
    """Whether a request comes from a page of another site, by ``Sec-Fetch-Site`` or, in old browsers, ``Origin``."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("Origin")
    try:
        return origin is not None and urlsplit(origin).netloc != request.host
    except ValueError:  # it is not an address
        return True


def kept_secret(file: Path) -> bytes:
    """The content of a secret file, readable by this user alone; created if it is missing or too short."""
    try:
        if len(secret := file.read_bytes()) >= SECRET:
            return secret
    except OSError:
        pass
    secret = secrets.token_bytes(SECRET)
    write_atomically(file, secret, mode=0o600)
    return secret
