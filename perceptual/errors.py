"""All errors that this package raises on purpose, as one tree.

Each class has the HTTP status of the server's reply. The command line prints the message as one red line and exits
with status 1::

    PerceptualError                 500
    ├── InputError                  400
    │   ├── InvalidImage            400   not an image, or a truncated one
    │   ├── InvalidVideo            400   not a video, or a damaged one
    │   ├── UnsupportedFormat       415   an image or video of a format that is not supported
    │   ├── ImageTooLarge           413   more pixels or bytes than the limit
    │   ├── InvalidOption           422   a value out of its range, or an unknown name
    │   ├── UnknownStyle            404   a style that the network or collection does not have
    │   └── NotAcceptable           406   the client accepts no supported format
    ├── OutOfMemory                 507   a GPU without enough free memory
    ├── DeadlineExceeded            503   a picture that takes much longer than expected for its size
    ├── MissingExtra                500   an optional package that is not installed
    ├── WeightsError                500   a weights file that is missing, damaged or of another task
    ├── ExportError                 500   an exported network that does not give the same picture
    ├── TrainingError               500   a training that cannot start or continue
    └── ServerError                 503   TorchServe does not start, does not answer, or refuses
        ├── WorkerDied              500   two workers died during a request
        ├── InternalError           500   a fault of the server's own
        ├── ModelPaused             503   the model was scaled to no workers
        ├── AlreadyRegistered       409   the server has that version of the model
        ├── ArchiveError            503   an archive that is missing or damaged
        └── WorkersFailed           503   the workers of a model do not start
"""

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .naming import ModelVersion


class PerceptualError(Exception):
    """Base of all errors this package raises on purpose; the message says what to do.

    Attributes:
        status: HTTP status of the server's reply.
        retry_after: Seconds after which the client may try again, as the server's reply states; None if it does not.
    """

    status = 500
    retry_after: int | None = None

    @property
    def name(self) -> str:
        """The class's name, as in the ``error`` field of a JSON reply."""
        return type(self).__name__


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def in_one_line(error: BaseException) -> str:
    """An error's message on one line, at most 400 characters: torch lists all keys of weights that do not fit."""
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else text[:400] + " …"


def did_you_mean(name: str, known: "Iterable[str]") -> str:
    """``; did you mean NAME?``, for an error about an unknown name; empty if no known name is similar."""
    alike = {folded(each): each for each in known}
    similar = get_close_matches(folded(name[:80]), alike, n=1)  # requests may have names of any length
    return f"; did you mean {alike[similar[0]]}?" if similar else ""


def folded(name: str) -> str:
    """A name in which case and separators are as in all others."""
    return name.casefold().replace(" ", "_").replace("-", "_")


class InputError(PerceptualError):
    """A request or file is wrong."""

    status = 400


class InvalidImage(InputError):
    """A file is not an image, or is truncated."""


class InvalidVideo(InputError):
    """A file is not a video, or nothing of it can be decoded."""


class UnsupportedFormat(InputError):
    """An image or a video of a format that is not supported."""

    status = 415


class ImageTooLarge(InputError):
    """A photo or a result exceeds the limit of pixels or bytes; a photo is judged by its header."""

    status = 413


class InvalidOption(InputError):
    """An option with an unknown name or a value out of its range."""

    status = 422


class UnknownStyle(InputError):
    """There is no style of that name; the message lists those that exist."""

    status = 404


def unknown_style(name: str, known: "Iterable[str]") -> UnknownStyle:
    """An error for an unknown style, with the one that may be meant, then the names of all that exist."""
    styles = list(known)
    hint = did_you_mean(name, styles)
    then = f"{hint} The" if hint else "; the"
    return UnknownStyle(f"there is no style {name[:80]!r} here{then} styles are: {', '.join(styles) or 'none'}")


class NotAcceptable(InputError):
    """The ``Accept`` header names no supported format."""

    status = 406


class OutOfMemory(PerceptualError):
    """A GPU has too little free memory even for a small part of the picture."""

    status = 507


class DeadlineExceeded(PerceptualError):
    """A picture takes much longer than expected for its size, as the machine is overloaded."""

    status = 503


class MissingExtra(PerceptualError):
    """An optional package is not installed; the message has the pip line."""


class WeightsError(PerceptualError):
    """A weights file that is missing, damaged, of another task, or does not fit its network."""


class ExportError(PerceptualError):
    """An exported network that does not give the same picture."""


class TrainingError(PerceptualError):
    """A training that cannot start, or had to stop."""


class ServerError(PerceptualError):
    """TorchServe does not start, does not answer, or refuses."""

    status = 503


class WorkerDied(ServerError):
    """Two workers of a server died during a request, usually for lack of memory."""

    status = 500


class InternalError(ServerError):
    """A fault of the server's own, on this request; its log has the traceback."""

    status = 500


class ModelPaused(ServerError):
    """The model was scaled to no workers, so it does not help to try again."""


class AlreadyRegistered(ServerError):
    """The server already has that version of the model."""

    status = 409


class ArchiveError(ServerError):
    """An archive that is missing or damaged."""


class WorkersFailed(ServerError):
    """The workers of a model do not start; the attribute ``model`` has its name and version."""

    def __init__(self, message: str, model: "ModelVersion") -> None:
        super().__init__(message)
        self.model = model
