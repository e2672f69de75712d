"""All errors that are raised on purpose, as one tree.

Each class carries the HTTP status with which the server answers it; the command line prints its message in one
red line and exits with 1::

    PerceptualError                 500
    ├── InputError                  400
    │   ├── InvalidImage            400   not an image, or a truncated one
    │   ├── InvalidVideo            400   not a video, or a damaged one
    │   ├── UnsupportedFormat       415   an image, but of a format we do not read
    │   ├── ImageTooLarge           413   more pixels or bytes than the limit
    │   ├── InvalidOption           422   a value out of its range, or an unknown name
    │   ├── UnknownStyle            404   a style that a collection does not hold
    │   └── NotAcceptable           406   the client accepts no format we write
    ├── OutOfMemory                 507   a GPU without enough free memory
    ├── DeadlineExceeded            503   a picture that takes much longer than expected for its size
    ├── MissingExtra                500   an optional package that is not installed
    ├── WeightsError                500   a weights file that is missing, damaged or of another task
    ├── ExportError                 500   an exported network that does not give the same picture
    ├── TrainingError               500   a training that cannot start or go on
    └── ServerError                 503   TorchServe does not start, answer or do as asked
        ├── AlreadyRegistered       409   the server has that version of the model
        ├── ArchiveError            503   an archive that is missing, damaged or not one
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
        status: With which the server answers it.
        retry_after: Seconds after which the server that answered with it asks to try again, if it does.
    """

    status = 500
    retry_after: int | None = None

    @property
    def name(self) -> str:
        """The class's name, as it stands in the ``error`` field of a JSON reply."""
        return type(self).__name__


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def in_one_line(error: BaseException) -> str:
    """An error's message on one line, at most 400 characters: torch lists every key of weights that does not fit."""
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else text[:400] + " …"


def did_you_mean(name: str, known: "Iterable[str]") -> str:
    """``; did you mean NAME?``, for an error about an unknown name; nothing if no known one is similar."""
    similar = get_close_matches(name[:80], list(known), n=1)  # requests may have names of any length
    return f"; did you mean {similar[0]}?" if similar else ""


class InputError(PerceptualError):
    """The request or file is wrong, not the program."""

    status = 400


class InvalidImage(InputError):
    """The bytes are not an image, or break off before its end."""


class InvalidVideo(InputError):
    """A file is not a video, or nothing of it can be decoded."""


class UnsupportedFormat(InputError):
    """An image or a video of a format that is not read here."""

    status = 415


class ImageTooLarge(InputError):
    """A photo of more pixels than the limit, as its header says, or a result of more pixels or bytes."""

    status = 413


class InvalidOption(InputError):
    """An option with an unknown name or a value out of its range."""

    status = 422


class UnknownStyle(InputError):
    """A collection holds no style of that name; the message lists those it holds."""

    status = 404


class NotAcceptable(InputError):
    """The ``Accept`` header names no format that is written here."""

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


class AlreadyRegistered(ServerError):
    """The server already has that version of the model."""

    status = 409


class ArchiveError(ServerError):
    """An archive that is missing, damaged or not one."""


class WorkersFailed(ServerError):
    """The workers of a model do not start; the attribute ``model`` has its name and version."""

    def __init__(self, message: str, model: "ModelVersion") -> None:
        super().__init__(message)
        self.model = model
