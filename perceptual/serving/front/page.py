"""The page at the server's address: access to it, its files, and its data.

A Content-Security-Policy limits each file: it loads only from this server, runs no inline script, and cannot be framed
by another page.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from multidict import CIMultiDict

from ...options import FORMATS
from .about import About
from .access import unauthorized
from .replies import Refusal
from .torchserve import TorchServe
from .visitors import Visitors, is_foreign

FOLDER = Path(__file__).parents[1] / "page"
SAMPLES = "samples"  # the folder of photos to try
INDEX, ENTRY = "index.html", "entry.html"
SECRET = "page.key"  # in PageSettings.state

ALONE = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
POLICY = (
    f"{ALONE}; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "require-trusted-types-for 'script'"
)
HEADERS = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class PageSettings:
    """Settings of the page.

    Attributes:
        model_store: The folder of archives.
        state: A folder for files that outlast a restart.
        status: Whether it has a tab with the status of the server.
        token: The command that prints a token, for the command line that the page shows; empty if none is needed.
    """

    model_store: Path
    state: Path
    status: bool = False
    token: str = ""


class Page:
    """Serves the page.

    Args:
        torchserve: The client of TorchServe.
        settings: Its settings.
        largest: Limit for a photo, in bytes.
        tokens: Whether a browser needs a key or the cookie.
    """

    def __init__(self, torchserve: TorchServe, settings: PageSettings, largest: int, tokens: bool) -> None:
        self.settings = settings
        self.largest = largest
        self.visitors = Visitors(settings.state / SECRET) if tokens else None
        self.about = About(torchserve, settings.model_store, settings.state)
        self.files = {file.name: file for file in FOLDER.iterdir() if file.is_file() and file.suffix != ".py"}
        self.samples = {file.name: file for file in (FOLDER / SAMPLES).iterdir()}

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Adds its routes."""
        router.add_get("/", self.send_index)
        router.add_get("/page/about", self.send_about)
        router.add_get("/page/files/{name}", self.send_file)
        router.add_get("/page/samples/{name}", self.send_sample)
        if self.settings.status:
            router.add_get("/page/status", self.send_status)

    def invite(self) -> str:
        """Issues a key for one browser; empty if none is needed."""
        return self.visitors.invite() if self.visitors else ""

    def let_in(self, request: web.BaseRequest) -> bool:
        """Whether a request may use the page. Raises a refusal if it has the cookie but comes from another site."""
        return self.visitors is None or self.visitors.let_in(request)

    def check(self, request: web.Request) -> None:
        """Raises a refusal unless a request may use the page."""
        if not self.let_in(request):
            raise unauthorized()

    async def send_index(self, request: web.Request) -> web.StreamResponse:
        """The page itself; also for a browser that follows a link from another site, as this request has no effect."""
        key = request.query.get("key")
        known = self.visitors is None or self.visitors.knows(request)
        if key is None:
            return self.file(self.files[INDEX]) if known else self.refuse(request)
        admitted = self.visitors is not None and self.visitors.admit(key)  # also of a known browser: it works once
        if not known and not admitted:
            return self.refuse(request)
        response = web.Response(status=303, headers={**HEADERS, "Location": without_key(request)})
        if self.visitors and not known:
            self.visitors.remember(response)
        return response

    def refuse(self, request: web.Request) -> web.StreamResponse:
        """Replies with the page that says how to get access.

        A browser that follows a link from another site does not send the cookie, though it may have it. So the reply
        makes it load the same address again, now from this site.
        """
        text = self.files[ENTRY].read_text(encoding="utf-8")
        refusal = Refusal(401, "token", "")
        refusal.headers.update(HEADERS | {"Content-Security-Policy": policy_of(text)})
        refusal.content_type, refusal.text = "text/html", text
        if is_foreign(request):
            refusal.headers["Refresh"] = f"0; url={without_key(request)}"
        raise refusal

    async def send_file(self, request: web.Request) -> web.StreamResponse:
        """A file of the page."""
        self.check(request)
        return self.file(self.files.get(request.match_info["name"]))

    async def send_sample(self, request: web.Request) -> web.StreamResponse:
        """A photo to try."""
        self.check(request)
        return self.file(self.samples.get(request.match_info["name"]))

    async def send_about(self, request: web.Request) -> web.Response:
        """The models, styles, formats and limits that the page offers."""
        self.check(request)
        about = {
            "models": await self.about.models(),
            "formats": FORMATS,
            "max_bytes": self.largest,
            "status": self.settings.status,
            "token": self.settings.token,
        }
        return web.json_response(about, headers=HEADERS)

    async def send_status(self, request: web.Request) -> web.Response:
        """The status of the server's models."""
        self.check(request)
        return web.json_response({"models": await self.about.status()}, headers=HEADERS)

    def file(self, path: Path | None) -> web.StreamResponse:
        """A file, which the browser must revalidate each time. Raises a refusal if it does not exist."""
        if path is None:
            raise Refusal(404, "page", "there is no such file")
        return web.FileResponse(path, headers=CIMultiDict(HEADERS | {"Content-Security-Policy": POLICY}))


def without_key(request: web.Request) -> str:
    """The address of a request, without the key."""
    return str(request.rel_url.without_query_params("key"))


def policy_of(html: str) -> str:
    """The policy of a page in one file: it may use only its inline styles."""
    styles = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in styles]
    allowed = " ".join(f"'sha256-{each}'" for each in digests)
    return f"{ALONE}; style-src {allowed}; img-src data:"
