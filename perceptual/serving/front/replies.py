"""The front's own error replies."""

import json

from aiohttp import web

RETRY_AFTER = 5  # seconds; about the time for a full queue to empty, or for TorchServe to start

# TorchServe's types of errors, which clients may know.
TYPES = {401: "InvalidKeyException", 503: "ServiceUnavailableException"}


class Refusal(web.HTTPException):
    """The reply to a request that the front does not forward, or aborts.

    Args:
        status: HTTP status.
        reason: Label under which it is counted.
        message: What is wrong, and what to do.
        retry_after: Seconds, for the header.
        error: Name of an error of :mod:`perceptual.errors`; the reply then has the handlers' format, not TorchServe's.
        close: Whether to close the connection.
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
    """A 503 with ``Retry-After``."""
    return Refusal(503, reason, message, retry_after=seconds)
