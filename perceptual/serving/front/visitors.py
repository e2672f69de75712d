"""Who may use the page: an address with a key that works once, and from then on a cookie of the browser.

The page holds no token: the front takes the cookie for one, and it stays good whatever becomes of tokens. A browser
sends a cookie whoever asks it to, so the front takes it from the page's own requests alone.
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

LIFETIME = 30 * 86_400  # seconds of a cookie; the browser forgets it when it is closed
SECRET = 32  # bytes
MOST_KEYS = 100  # that are not used yet


class Visitors:
    """Lets browsers in.

    Args:
        file: With what cookies are signed, so that they outlast a restart; made if it is not there. Cookies are worth
            nothing as soon as it is deleted and the server started again.
    """

    def __init__(self, file: Path) -> None:
        self.secret = kept_secret(file)
        self.name = f"perceptual-{hashlib.sha256(self.secret).hexdigest()[:8]}"  # ports of one host share their cookies
        self.keys: list[str] = []

    def invite(self) -> str:
        """A key that lets one browser in."""
        key = secrets.token_urlsafe(24)
        self.keys = [*self.keys, key][-MOST_KEYS:]
        return key

    def admit(self, key: str) -> bool:
        """Whether a key is good; it no longer is, after that."""
        left = [each for each in self.keys if not hmac.compare_digest(each.encode(), key.encode())]
        admitted = len(left) < len(self.keys)
        self.keys = left
        return admitted

    def remember(self, response: web.StreamResponse) -> None:
        """Gives a browser the cookie."""
        expiry = str(int(time.time()) + LIFETIME)
        value = f"{expiry}.{signature(self.secret, expiry)}"
        response.set_cookie(self.name, value, httponly=True, samesite="Strict")

    def knows(self, request: web.BaseRequest) -> bool:
        """Whether a request has a cookie that is still good."""
        expiry, _, signed = request.cookies.get(self.name, "").partition(".")
        genuine = hmac.compare_digest(signature(self.secret, expiry).encode(), signed.encode())
        return genuine and int(expiry) >= time.time()

    def let_in(self, request: web.BaseRequest) -> bool:
        """Whether a request is by the page of a browser that was let in.

        Raises:
            Refusal: It has the cookie, but comes from another page.
        """
        if not self.knows(request):
            return False
        if is_foreign(request):
            raise Refusal(403, "origin", "another page asks, and only the server's own may", error="Forbidden")
        return True


def is_foreign(request: web.BaseRequest) -> bool:
    """Whether a browser says that another page asks: by ``Sec-Fetch-Site`` or, if it is old, by ``Origin``."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("Origin")
    return origin is not None and urlsplit(origin).netloc != request.host


def kept_secret(file: Path) -> bytes:
    """The content of a file for this user alone, which is made if it is not there or too short."""
    try:
        if len(secret := file.read_bytes()) >= SECRET:
            return secret
    except OSError:
        pass
    secret = secrets.token_bytes(SECRET)
    write_atomically(file, secret, mode=0o600)
    return secret
