"""Notifications for systemd: ready, watchdog and stopping (the protocol of ``sd_notify``)."""

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Sends systemd a state such as ``READY=1``, if it started this program as a service of ``Type=notify``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # Linux: a socket without a file
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, suppress(OSError):
        systemd.sendto(state.encode(), address)
