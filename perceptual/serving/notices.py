"""What systemd is told: that the server is ready, that it still lives, and that it is about to end."""

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Tells systemd something, such as ``READY=1``, if it started this program and wants to know (``Type=notify``)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # Linux: a socket without a file
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, suppress(OSError):
        told.sendto(state.encode(), address)
