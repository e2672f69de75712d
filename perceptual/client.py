"""Clients of a running server: one asks for pictures, one manages the models."""

import io
import json
import os
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import httpx
import psutil
from PIL import ExifTags, Image

from . import errors
from .errors import InputError, PerceptualError, ServerError

KINDS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
RENEW_WITHIN = 120.0  # seconds before a token's expiry
NOT_IN_PNG = ("CMYK", "YCbCr", "LAB", "F", "I", "PA", "RGBX")  # modes of PIL
# Seconds; more than the archives allow a worker: responseTimeout for a picture, startupTimeout to load.
WORKING = 610.0
LOADING = 660.0
SETTLE = 10.0  # seconds between TorchServe's word that workers are loaded and their being ready; a moment in fact

ADVICE = {
    403: "make another version the default first: perceptual models set-default",
    404: "perceptual models list tells what there is, and perceptual models register adds to it",
    405: "the server's model API is off: set enable_model_api=true in its config.properties",
    409: "unregister it first, or give the new one another --version",
    500: "the reason is in the server's log",
    503: "its workers are busy or down: try again, or scale them up",
    507: "out of memory: send a smaller picture, or set max_size",
}

# TorchServe's words, the only place where it tells what it took from the manifest.
REGISTERED = re.compile(r'Model "(.+?)" Version: (\S+) registered')
FAILED = re.compile(r"Failed to start workers for model (\S+) version: ([^\s;]+)")


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


class Registered(NamedTuple):
    """A model's name and version, as its archive's manifest tells them."""

    name: str
    version: str


class Client:
    """What both clients share: a connection that turns failures into errors of this package."""

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
                f"no answer from {self.url} within {limit:g} s; perceptual status tells if workers are busy or down"
            ) from error
        except httpx.TransportError as error:
            raise ServerError(f"the connection to {self.url} broke: {error}") from error
        if not response.is_success:
            raise error_of(response)
        return response


class InferenceClient(Client):
    """Asks a server for pictures.

        >>> with find_server().inference() as client:
        ...     Path("out.jpg").write_bytes(client.stylize("photo.jpg", "starry_night", strength=0.8))

    Args:
        url: The server's inference address.
        auth: :class:`Tokens` of kind ``inference``; None for a server with token authorization off.
        timeout: Seconds to wait for a reply.
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8080", auth: httpx.Auth | None = None, timeout: float = WORKING
    ) -> None:
        super().__init__(url, auth, timeout)

    def stylize(self, photo: str | Path | bytes | Image.Image, model: str, **options: Any) -> bytes:
        """Stylizes one photo: a path, an encoded image, or a PIL image.

        Args:
            photo: Sent as it is; a PIL image as PNG, or as TIFF where PNG lacks its mode.
            model: A registered model's name, or ``name/version``.
            options: As in :class:`perceptual.options.StyleOptions`; None leaves one at its default.

        Returns:
            The encoded picture, as the server sent it: JPEG, unless ``format`` says otherwise.

        Raises:
            InputError: The server refuses the photo or an option (see :mod:`perceptual.errors`).
            ServerError: No server, no such model, no token, or no worker.
        """
        return self.predict(photo, model, options)

    def upscale(self, photo: str | Path | bytes | Image.Image, model: str, **options: Any) -> bytes:
        """Enlarges one photo by a network of super-resolution.

        Args:
            photo: As in :meth:`stylize`.
            model: As in :meth:`stylize`.
            options: As in :class:`perceptual.options.UpscaleOptions`; None leaves one at its default.

        Returns:
            The encoded picture, as in :meth:`stylize`.

        Raises:
            InputError: As in :meth:`stylize`; ImageTooLarge where the result would be over the server's limit.
            ServerError: As in :meth:`stylize`.
        """
        return self.predict(photo, model, options)

    def predict(self, photo: str | Path | bytes | Image.Image, model: str, options: dict[str, Any]) -> bytes:
        """What a model of either task makes of a photo."""
        begin = {"X-Request-Start": f"t={time.time():.3f}"}  # from which the worker tells the wait
        headers = {"Content-Type": "application/octet-stream"} | begin | option_headers(options)
        path = f"/predictions/{quote(model)}"
        return self.send("POST", path, content=encoded(photo), headers=headers).content


class ManagementClient(Client):
    """Registers, scales and unregisters the models of a server.

    Args:
        url: The server's management address.
        auth: :class:`Tokens` of kind ``management``; None for a server with token authorization off.
        timeout: Seconds to wait for a reply; loading a model takes a while.
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8081", auth: httpx.Auth | None = None, timeout: float = LOADING
    ) -> None:
        super().__init__(url, auth, timeout)

    def models(self) -> dict[str, str]:
        """The registered models: name and archive."""
        found: dict[str, str] = {}
        page: dict[str, Any] = {"nextPageToken": 0}
        while "nextPageToken" in page:
            page = self.send("GET", "/models", params={"next_page_token": page["nextPageToken"]}).json()
            found |= {each["modelName"]: each["modelUrl"] for each in page["models"]}
        return found

    def describe(self, name: str, version: str | None = None) -> dict[str, Any]:
        """TorchServe's description of a model: ``modelVersion``, ``batchSize``, ``workers``, ….

        Raises:
            ServerError: No such model or version.
        """
        return self.send("GET", model_path(name, version)).json()[0]

    def versions(self, name: str) -> list[dict[str, Any]]:
        """The descriptions of all versions of a model that are registered, the default one first.

        Raises:
            ServerError: No such model.
        """
        default = self.describe(name)["modelVersion"]
        every = self.send("GET", model_path(name, "all")).json()
        return sorted(every, key=lambda each: (each["modelVersion"] != default, each["modelVersion"]))

    def ready_workers(self, name: str, version: str | None = None) -> list[int]:
        """Process ids of the workers that have loaded the model; ``/ping`` says Healthy even without any."""
        return [each["pid"] for each in self.describe(name, version)["workers"] if each["status"] == "READY"]

    def register(
        self,
        archive: str,
        *,
        workers: int | None = None,
        batch_size: int | None = None,
        max_batch_delay: int | None = None,
    ) -> Registered:
        """Registers an archive of the model store and waits until its workers are ready.

        The first version of a model becomes its default; a further one is served at ``name/version`` until
        :meth:`set_default`. :func:`perceptual.registration.register` also packages, warms up and takes files
        from elsewhere.

        Args:
            archive: File name in the model store.
            workers: How many; by default what the archive says.
            batch_size: Most requests in one batch; by default what the archive says.
            max_batch_delay: Milliseconds a batch waits to be full; by default what the archive says.

        Returns:
            The model's name and version, as the archive's manifest tells them.

        Raises:
            ServerError: No such archive, registered already, or it fails to load; then it is not kept.
        """
        # Not the parameter initial_workers: the archive's own number goes before it.
        wishes = {"batch_size": batch_size, "max_batch_delay": max_batch_delay}
        parameters = {"url": Path(archive).name, "initial_workers": 1, "synchronous": "true"}
        parameters |= {key: value for key, value in wishes.items() if value is not None}
        try:
            registered = registered_in(self.send("POST", "/models", params=parameters).json()["status"])
        except ServerError as error:
            if failed := FAILED.search(str(error)):  # TorchServe keeps a model that failed to load
                with suppress(ServerError):
                    self.unregister(*failed.groups())
            raise
        try:
            if workers is not None:
                self.scale(registered.name, workers, registered.version)
            self.wait_until_ready(*registered)
        except ServerError:
            with suppress(ServerError):
                self.unregister(*registered)
            raise
        return registered

    def scale(
        self,
        name: str,
        workers: int,
        version: str | None = None,
        progress: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Sets the number of workers of a model's version, by default of the default one, and waits for them.

        :func:`perceptual.scaling.scale` also sees to it that there is memory for them.

        Raises:
            ServerError: No such model, or a worker fails to start; then there are as many as before.
        """
        before = self.describe(name, version)["minWorkers"]
        try:
            with self.telling_progress(name, workers, version, progress):
                self.set_workers(name, workers, version)
                self.wait_until_ready(name, version)
        except ServerError:  # TorchServe would go on starting those that fail
            with suppress(ServerError):
                self.set_workers(name, before, version)
            raise

    def set_workers(self, name: str, workers: int, version: str | None) -> None:
        """Sets the number of workers, as TorchServe does it; see :meth:`scale`."""
        parameters = {"min_worker": workers, "max_worker": workers, "synchronous": "true"}
        self.send("PUT", model_path(name, version), params=parameters)

    @contextmanager
    def telling_progress(
        self, name: str, workers: int, version: str | None, progress: Callable[[str], None]
    ) -> Iterator[None]:
        """Tells several times a second how many workers are ready, while TorchServe is at it."""
        done = threading.Event()

        def tell() -> None:
            while not done.wait(0.3):
                with suppress(ServerError):
                    progress(f"{len(self.ready_workers(name, version))} of {workers} workers ready")

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            done.set()
            teller.join()

    def wait_until_ready(self, name: str, version: str | None = None) -> None:
        """Returns when all workers are ready: TorchServe answers a moment before they count as that.

        Raises:
            ServerError: No such model, or they are not ready within :data:`SETTLE` seconds.
        """
        deadline = time.monotonic() + SETTLE
        while len(self.ready_workers(name, version)) < self.describe(name, version)["minWorkers"]:
            if time.monotonic() > deadline:
                raise ServerError(f"not all workers of {name} are ready; perceptual status tells more")
            time.sleep(0.05)

    def set_default(self, name: str, version: str) -> None:
        """Makes a version the one that answers where a request names none.

        Raises:
            ServerError: No such model or version.
        """
        self.send("PUT", f"{model_path(name, version)}/set-default")

    def unregister(self, name: str, version: str | None = None) -> None:
        """Removes a model with all its versions, or only one of them, and ends its workers.

        Raises:
            ServerError: No such model or version, or it is the default of several.
        """
        # Without a version TorchServe would remove the default alone, or refuse.
        doomed = [version] if version else [each["modelVersion"] for each in reversed(self.versions(name))]
        for each in doomed:
            self.send("DELETE", model_path(name, each))


@dataclass(frozen=True)
class RunningServer:
    """Where a server can be reached, and its folder of archives.

    ``key_file`` is None if the server has token authorization off. One that ``perceptual serve`` did not start has the
    ``pid`` 0, and its logs, model store and snapshots are not known.
    """

    pid: int
    inference_url: str
    management_url: str
    metrics_url: str
    key_file: str | None
    logs: str
    model_store: str = ""
    snapshots: str = ""

    def inference(self, timeout: float = WORKING) -> InferenceClient:
        """A client for pictures."""
        return InferenceClient(self.inference_url, self.tokens("inference"), timeout)

    def management(self, timeout: float = LOADING) -> ManagementClient:
        """A client for the models."""
        return ManagementClient(self.management_url, self.tokens("management"), timeout)

    def tokens(self, kind: Literal["inference", "management"]) -> Tokens | None:
        """What signs requests to one of its APIs."""
        return Tokens(self.key_file, kind, self.management_url) if self.key_file else None

    def announce(self, port: int) -> Path:
        """Writes the file by which :func:`find_server` finds it under a port, for this user alone to read."""
        folder = state_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = folder / f"{port}.json"
        draft = file.with_suffix(".tmp")
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(asdict(self)))
        return draft.replace(file)


def find_server(port: int | None = None) -> RunningServer:
    """The server this user started last with ``perceptual serve``, or the one on an inference port.

    Raises:
        ServerError: There is none.
    """
    files = state_folder().glob("*.json" if port is None else f"{port}.json")
    for file in sorted(files, key=os.path.getmtime, reverse=True):
        server = RunningServer(**json.loads(file.read_text()))
        if psutil.pid_exists(server.pid):  # otherwise it was killed
            return server
    where = "" if port is None else f" on port {port}"
    raise ServerError(f"no server is running{where}; start one with: perceptual serve")


def server_at(management_url: str, key_file: str | Path | None = None) -> RunningServer:
    """A server by the address of its management API.

    Its other addresses are taken to be TorchServe's: inference at the port before, metrics at the port after. Beside a
    socket (``unix:FOLDER/management.sock``) is that of inference, and metrics are not known.

    Raises:
        InputError: It is no address.
    """
    keys = str(key_file) if key_file else None
    if management_url.startswith("unix:"):
        folder = management_url.rpartition("/")[0]
        return RunningServer(0, f"{folder}/inference.sock", management_url, "", keys, logs="")
    try:
        url = httpx.URL(management_url)
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        inference, metrics = (str(url.copy_with(port=port + step)) for step in (-1, 1))
    except (KeyError, httpx.InvalidURL):
        raise InputError(f"expected an address such as http://127.0.0.1:8081, got {management_url!r}") from None
    return RunningServer(0, inference, management_url, metrics, keys, logs="")


def state_folder() -> Path:
    """Where the running servers of this user are noted down."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or Path.home() / ".cache") / "torchserve-perceptual"


def model_path(name: str, version: str | None = None) -> str:
    """Where the management API has a model, or a version of it."""
    return "/models/" + "/".join(quote(each, safe="") for each in (name, version) if each is not None)


def registered_in(status: str) -> Registered:
    """Name and version from TorchServe's reply to a registration. Raises ServerError if they are not there."""
    if not (found := REGISTERED.search(status)):
        raise ServerError(f"unexpected reply to a registration: {status}")
    return Registered(*found.groups())


def option_headers(options: dict[str, Any]) -> dict[str, bytes]:
    """Options as request headers: ``X-Keep-Colors: True`` for ``keep_colors=True``."""
    given = {name: value for name, value in options.items() if value is not None}
    # Escaped, as a header holds neither newlines nor letters outside ASCII; the server then refuses the value.
    return {f"X-{name.replace('_', '-').title()}": str(value).encode("unicode_escape") for name, value in given.items()}


def encoded(photo: str | Path | bytes | Image.Image) -> bytes:
    """A photo as the bytes of an image file."""
    if isinstance(photo, bytes):
        return photo
    try:
        if not isinstance(photo, Image.Image):
            return Path(photo).read_bytes()
        buffer = io.BytesIO()
        format = "TIFF" if photo.mode in NOT_IN_PNG else "PNG"
        photo.save(buffer, format, icc_profile=photo.info.get("icc_profile"), exif=orientation_of(photo))
        return buffer.getvalue()
    except OSError as error:
        raise InputError(f"cannot send {photo}: {error.strerror or error}") from error


def orientation_of(photo: Image.Image) -> Image.Exif:
    """The EXIF block of a photo with nothing but how it was held: Pillow fails to write many an odd tag."""
    exif = Image.Exif()
    with suppress(Exception):  # whatever Pillow raises of a damaged block
        exif[ExifTags.Base.Orientation] = photo.getexif()[ExifTags.Base.Orientation]
    return exif


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
            "the server wants a valid token: name its key file (--key-file; in Python auth=Tokens(key_file, …)), or "
            "have the server of this machine found (no --url; find_server())"
        )
    if response.status_code == 413:
        return InputError("the photo has more bytes than the server takes (max_request_size in its config.properties)")
    message = str(reply.get("message") or f"HTTP {response.status_code} {response.reason_phrase}")
    advice = ADVICE.get(response.status_code)
    return ServerError(f"{message}; {advice}" if advice else message)


def is_token_refused(response: httpx.Response) -> bool:
    """Whether a token was missing, wrong or expired: TorchServe answers 400, not 401."""
    return response.status_code == 400 and "InvalidKeyException" in response.text
