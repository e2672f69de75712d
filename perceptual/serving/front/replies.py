"""Replies that the front gives itself."""

import json

from aiohttp import web

RETRY_AFTER = 5  # seconds; a full queue or a start of TorchServe passes in about that time

# Of TorchServe, by which clients and its own tools know an error.
TYPES = {401: "InvalidKeyException", 503: "ServiceUnavailableException"}


class Refusal(web.HTTPException):
    """A request that is not passed on, or not any further.

    Args:
        status: Of HTTP.
        reason: Under which it is counted, in a word.
        message: What is wrong, and what to do.
        retry_after: Seconds after which to try again.
        error: Name of an error of :mod:`perceptual.errors`, in whose form the message is then given, not TorchServe's.
        close: Whether the connection is of no further use.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        retry_after: int | None = None,
        error: str | None = None,
        close: bool = False,
    ) -> None:
        self.status_code = status
        own = {"error": error, "detail": message}
        torchserve = {"code": status, "type": TYPES.get(status, "BadRequestException"), "message": message}
        super().__init__(text=json.dumps(own if error else torchserve), content_type="application/json")
        self.why = reason
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"
        if close:
            self.force_close()


def unavailable(reason: str, message: str, seconds: int = RETRY_AFTER) -> Refusal:
    """A 503, which says when to try again."""
    return Refusal(503, reason, message, retry_after=seconds)
