"""Ends process groups as a whole, and together with the program."""

import os
import signal
import subprocess
import time
from contextlib import suppress

import psutil

STOP_TIMEOUT = 15.0  # seconds for a process group to end after SIGTERM; TorchServe's takes about two


def guard(group: int) -> "subprocess.Popen[bytes]":
    """Starts a process that ends a process group when this program has ended, even by ``kill -9``."""
    # However the program ends, its pipe is closed. PR_SET_PDEATHSIG would reach TorchServe's launcher alone.
    script = f'read -r _; kill -s TERM -- -"$1"; sleep {STOP_TIMEOUT:g}; kill -s KILL -- -"$1"'
    return subprocess.Popen(
        ["sh", "-c", script, "sh", str(group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def end_group(leader: "subprocess.Popen[bytes]") -> None:
    """Ends a process group and returns when no process of it is left."""
    try:
        signal_group(leader.pid, signal.SIGTERM)
        wait_for_end(leader.pid)
    finally:  # even if a second Ctrl-C interrupts the wait
        signal_group(leader.pid, signal.SIGKILL)
        wait_for_end(leader.pid)
        leader.wait()


def signal_group(group: int, number: signal.Signals) -> None:
    """Sends a signal to a process group, if it still exists."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def wait_for_end(group: int) -> None:
    """Waits until a process group is empty, for at most :data:`STOP_TIMEOUT`."""
    deadline = time.monotonic() + STOP_TIMEOUT
    while group_members(group) and time.monotonic() < deadline:
        time.sleep(0.05)


def group_members(group: int) -> list[int]:
    """Process ids of a group. Zombies do not count: if PID 1 is not an init, nothing reaps orphaned ones."""
    members = []
    for process in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                members.append(process.pid)
    return members
