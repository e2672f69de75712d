"""The client of the inference API: stylizes and enlarges pictures."""

import io
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from PIL import ExifTags, Image
from requests.auth import AuthBase

from ..errors import InputError
from ..files import path_of
from ..options import CollectionOptions
from ..settings import option_name, parse_one, settings_of
from .connection import Client

NOT_IN_PNG = ("CMYK", "YCbCr", "LAB", "F", "I", "PA", "RGBX")  # PIL modes that are sent as TIFF
IN_NO_FILE = {"HSV": "RGB", "RGBa": "RGBA", "La": "LA"}  # PIL modes, and the modes to which they are converted
SETTINGS = {option_name(each): each for each in settings_of(CollectionOptions)}
WORKING = 610.0  # seconds; more than responseTimeout in the archives' yaml


class InferenceClient(Client):
    """Sends photos to a server.

        >>> with find_server().inference() as client:
        ...     Path("out.jpg").write_bytes(client.stylize("photo.jpg", "styles", style="starry_night"))

    Args:
        url: The server's inference address.
        auth: :class:`Tokens` of kind ``inference``, or the key of this client for a proxy; None for a server that needs
            neither.
        timeout: Seconds to wait for a reply.

    Raises:
        InputError: The address is malformed, or that of a model.
        InvalidOption: The key cannot be sent.
    """

    example: ClassVar[str] = "http://127.0.0.1:8080"
    token_advice: ClassVar[str] = (
        f"give its inference address alone, such as {example}; for a server that another user or machine has started, "
        "also a token (--key; in Python auth=Tokens(…))"
    )

    def __init__(
        self, url: str = "http://127.0.0.1:8080", auth: AuthBase | str | None = None, timeout: float = WORKING
    ) -> None:
        super().__init__(url, auth, timeout)
        parts = urlsplit(self.base)
        if "predictions" in parts.path.split("/"):  # as in a line of curl
            alone = parts._replace(path=parts.path.partition("/predictions")[0], query="", fragment="").geturl()
            raise InputError(f"expected the inference address alone, such as {alone}, got {url!r}")

    def stylize(self, photo: str | Path | bytes | Image.Image, model: str, **options: Any) -> bytes:
        """Stylizes one photo: a path, an encoded image, or a PIL image.

        Args:
            photo: Files are sent unchanged; a PIL image as PNG, or as TIFF if PNG does not have its mode.
            model: A registered model's name, or ``name/version``.
            options: As in :class:`perceptual.options.StyleOptions`, a mixture also as a mapping such as
                ``{"starry_night": 0.6, "udnie": 0.4}``; None means the default.

        Returns:
            The encoded picture, as the server sent it: JPEG by default, see ``format``.

        Raises:
            InputError: The server refuses the photo or an option (see :mod:`perceptual.errors`).
            ServerError: No server, no such model, no token, or no worker.
        """
        return self.predict(photo, model, options)

    def upscale(self, photo: str | Path | bytes | Image.Image, model: str, **options: Any) -> bytes:
        """Enlarges one photo with a super-resolution network.

        Args:
            photo: As in :meth:`stylize`.
            model: As in :meth:`stylize`.
            options: As in :class:`perceptual.options.UpscaleOptions`; None means the default.

        Returns:
            The encoded picture, as in :meth:`stylize`.

        Raises:
            InputError: As in :meth:`stylize`; ImageTooLarge if the result would exceed the server's limit.
            ServerError: As in :meth:`stylize`.
        """
        return self.predict(photo, model, options)

    def predict(self, photo: str | Path | bytes | Image.Image, model: str, options: dict[str, Any]) -> bytes:
        """Sends a photo to a model of either task; the arguments are those of :meth:`stylize`."""
        headers = {"Content-Type": "application/octet-stream"} | option_headers(options)
        path = f"/predictions/{quote(model)}"
        return self.send("POST", path, data=encoded(photo), headers=headers).content


def option_headers(options: dict[str, Any]) -> dict[str, str]:
    """Options as request headers: ``X-Keep-Colors: True`` for ``keep_colors=True``.

    Raises:
        InvalidOption: A predictor in this process would refuse the value. Text is left to the server.
    """
    given = {name.replace("_", "-"): value for name, value in options.items() if value is not None}
    return {f"X-{name.title()}": header_value(name, value) for name, value in given.items()}


def header_value(name: str, value: Any) -> str:
    """A value as text in which newlines and letters outside ASCII are escaped, so that the server refuses them.

    A mixture of styles becomes ``starry_night:0.6,udnie:0.4``.
    """
    if name in SETTINGS and not isinstance(value, str):
        value = parse_one(SETTINGS[name], value)
        if isinstance(value, tuple):
            value = ",".join(f"{style}:{share}" for style, share in value)
    return str(value).encode("unicode_escape").decode().strip(" ")


def encoded(photo: str | Path | bytes | Image.Image) -> bytes:
    """A photo as the bytes of an image file. Raises InputError if it cannot be read."""
    if isinstance(photo, Image.Image):
        return saved(photo)
    if isinstance(photo, bytes | bytearray):
        return bytes(photo)  # requests would send a bytearray as an iterator, number by number
    try:
        return path_of(photo).read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot send {photo}: {getattr(error, 'strerror', None) or error}") from error


def saved(photo: Image.Image) -> bytes:
    """A PIL image as the bytes of an image file. Raises InputError if it is empty, truncated or damaged."""
    try:
        photo.load()  # which turns a TIFF upright, and removes its orientation
        profile, exif = photo.info.get("icc_profile"), orientation_of(photo)
        if photo.mode in IN_NO_FILE:
            photo = photo.convert(IN_NO_FILE[photo.mode])
        buffer = io.BytesIO()
        photo.save(buffer, "TIFF" if photo.mode in NOT_IN_PNG else "PNG", icc_profile=profile, exif=exif)
        return buffer.getvalue()
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise InputError(f"cannot send {photo}: {error}") from error


def orientation_of(photo: Image.Image) -> Image.Exif:
    """An EXIF block with the photo's orientation alone: Pillow fails to write some unusual tags."""
    exif = Image.Exif()
    with suppress(Exception):  # Pillow raises many kinds for a damaged block
        exif[ExifTags.Base.Orientation] = photo.getexif()[ExifTags.Base.Orientation]
    return exif
