"""The page at the server's address: who gets it, its files, and what it is told.

What a file may do is limited by a Content-Security-Policy: it loads from this server alone, runs no script that is not
a file, and stands in no other page.
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
SECRET = "page.key"  # in the folder of what outlasts a restart

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
    """What the page needs to know.

    Attributes:
        model_store: The folder of archives.
        state: A folder for what outlasts a restart.
        status: Whether it has a tab that tells how the server is doing.
        token: The command that prints a token, for the command line that the page shows; empty if none is needed.
    """

    model_store: Path
    state: Path
    status: bool = False
    token: str = ""


class Page:
    """Serves the page.

    Args:
        torchserve: Behind the front.
        settings: As above.
        largest: The most bytes of a photo.
        tokens: Whether only those may see it who have a key or the cookie.
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
        """A key that lets one browser in; empty if none is needed."""
        return self.visitors.invite() if self.visitors else ""

    def let_in(self, request: web.BaseRequest) -> bool:
        """Whether a request is by the page. Raises a refusal for one of another page with the cookie."""
        return self.visitors is None or self.visitors.let_in(request)

    def check(self, request: web.Request) -> None:
        """Raises a refusal unless a request is by the page."""
        if not self.let_in(request):
            raise unauthorized()

    async def send_index(self, request: web.Request) -> web.StreamResponse:
        """The page itself: also to whoever comes by a link, as it does nothing by itself."""
        key = request.query.get("key")
        known = self.visitors is None or self.visitors.knows(request)
        if key is None:
            return self.file(self.files[INDEX]) if known else self.refuse(request)
        if not known and not (self.visitors and self.visitors.admit(key)):
            return self.refuse(request)
        response = web.Response(status=303, headers={**HEADERS, "Location": without_key(request)})
        if self.visitors and not known:
            self.visitors.remember(response)
        return response

    def refuse(self, request: web.Request) -> web.StreamResponse:
        """The page that says how to get in.

        A browser that follows a link from elsewhere does not send the cookie, though it may have it: it is sent to the
        same address again, from here.
        """
        text = self.files[ENTRY].read_text(encoding="utf-8")
        refusal = Refusal(401, "token", "")
        refusal.headers.update(HEADERS | {"Content-Security-Policy": policy_of(text)})
        refusal.content_type, refusal.text = "text/html", text
        if is_foreign(request):
            refusal.headers["Refresh"] = f"0; url={without_key(request)}"
        raise refusal

    async def send_file(self, request: web.Request) -> web.StreamResponse:
        """One of its files."""
        self.check(request)
        return self.file(self.files.get(request.match_info["name"]))

    async def send_sample(self, request: web.Request) -> web.StreamResponse:
        """A photo to try."""
        self.check(request)
        return self.file(self.samples.get(request.match_info["name"]))

    async def send_about(self, request: web.Request) -> web.Response:
        """What there is to ask for."""
        self.check(request)
        told = {
            "models": await self.about.models(),
            "formats": FORMATS,
            "max_bytes": self.largest,
            "status": self.settings.status,
            "token": self.settings.token,
        }
        return web.json_response(told, headers=HEADERS)

    async def send_status(self, request: web.Request) -> web.Response:
        """How the server is doing."""
        self.check(request)
        return web.json_response({"models": await self.about.status()}, headers=HEADERS)

    def file(self, path: Path | None) -> web.StreamResponse:
        """A file, whose time of change the browser asks about each time. Raises a refusal if there is none."""
        if path is None:
            raise Refusal(404, "page", "there is no such file")
        return web.FileResponse(path, headers=CIMultiDict(HEADERS | {"Content-Security-Policy": POLICY}))


def without_key(request: web.Request) -> str:
    """The address of a request, less the key in it."""
    return str(request.rel_url.without_query_params("key"))


def policy_of(html: str) -> str:
    """The policy of a page that is all in one file: nothing but its own style."""
    styles = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in styles]
    allowed = " ".join(f"'sha256-{each}'" for each in digests)
    return f"{ALONE}; style-src {allowed}; img-src data:"
