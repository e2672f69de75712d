"""Decodes in a separate process: unlike a call into a library, a process can be killed.

The process decodes one picture after another, without torch. The operating system limits its processor time for each
picture, and its memory by the limit of pixels. A picture over these limits, or one that crashes a library, ends this
process and not the worker; a new process is started for the next picture.

A message consists of the length of a JSON header, the header, and a body whose length is in the header.
"""

import contextlib
import dataclasses
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np

from ... import errors
from ...errors import ImageTooLarge, InputError, InvalidImage
from .decoding import Pixels, decode
from .limits import Limits
from .metadata import Metadata

SECONDS = 10  # of processor time for a picture; the largest pictures take three
PIXEL_BYTES = 40  # maximum memory per pixel, with all intermediate forms
SPARE_BYTES = 1 << 29  # address space for libraries and their threads
ROOT = Path(__file__).parents[3]  # the folder of the package perceptual


class Decoder:
    """Decodes pictures in another process, which starts when this object is created."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.process = start()

    def __del__(self) -> None:
        self.end()

    def decode(self, data: bytes | bytearray, limits: Limits) -> Pixels:
        """As :func:`.decoding.decode`, but of the metadata only density and dates are returned.

        Raises:
            ImageTooLarge: As :func:`.decoding.decode`, or it takes too much time or memory.
            InvalidImage: As :func:`.decoding.decode`, or it crashes the library that decodes it.
            UnsupportedFormat: As :func:`.decoding.decode`.
        """
        with self.turn:
            if self.process.poll() is not None:
                self.end()
                self.process = start()
            try:
                send(self.process.stdin, {"limits": dataclasses.asdict(limits)}, data)
                header, body = receive(self.process.stdout)
            except (OSError, EOFError) as error:
                raise error_for(self.end()) from error
        return unpack(header, body)

    def end(self) -> int:
        """Ends the process by closing its pipes, and returns its exit code."""
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        return self.process.wait()


def start() -> "subprocess.Popen[bytes]":
    """Starts a process that decodes."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", __name__]
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, pipesize=1 << 20)


def error_for(code: int) -> InputError:
    """The error for a picture that ended the process, by its exit code."""
    if -code == signal.SIGXCPU:
        return ImageTooLarge(f"the image takes more than {SECONDS} s to decode; save it anew with an image editor")
    return InvalidImage("the image is damaged: its decoder crashed; save it anew with an image editor")


def unpack(header: dict[str, Any], body: bytes) -> Pixels:
    """The pixels in a reply of the process. Raises the error in it, if it has one."""
    if "failure" in header:
        raise RuntimeError(header["failure"])
    if "error" in header:
        raise getattr(errors, header["error"])(header["detail"])
    height, width = header["size"]
    rgb, alpha = np.split(np.frombuffer(body, np.uint8), [3 * height * width])
    dates = tuple((tag, text) for tag, text in header["dates"])
    metadata = Metadata(dpi=tuple(header["dpi"]) if header["dpi"] else None, dates=dates)
    return Pixels(rgb.reshape(height, width, 3), alpha.reshape(height, width) if len(alpha) else None, metadata)


def send(pipe: IO[bytes] | None, header: dict[str, Any], *bodies: Any) -> None:
    """Writes a message."""
    assert pipe
    sizes = [memoryview(each).nbytes for each in bodies]
    text = json.dumps(header | {"bytes": sum(sizes)}).encode()
    pipe.write(struct.pack("!I", len(text)) + text)
    for body in bodies:
        pipe.write(memoryview(body).cast("B"))
    pipe.flush()


def receive(pipe: IO[bytes] | None) -> tuple[dict[str, Any], bytes]:
    """Reads a message. Raises EOFError if the other side has closed its end."""
    assert pipe

    def exactly(count: int) -> bytes:
        data = pipe.read(count)
        if len(data) < count:
            raise EOFError
        return data

    header = json.loads(exactly(*struct.unpack("!I", exactly(4))))
    return header, exactly(header.pop("bytes"))


def limit(data: bytes, limits: Limits) -> None:
    """Sets the limits of this process's time and memory for a picture."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + SECONDS + 1, most))
    pages = Path("/proc/self/statm")
    if pages.exists():  # systems without /proc do not enforce this limit
        taken = int(pages.read_text().split()[0]) * resource.getpagesize()
        allowed = taken + SPARE_BYTES + 4 * len(data) + PIXEL_BYTES * limits.pixels
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (allowed if most < 0 else min(allowed, most), most))


def answer(header: dict[str, Any], data: bytes) -> tuple[dict[str, Any], list[Any]]:
    """Decodes one picture; returns header and bodies of the reply."""
    limits = Limits(**header["limits"])
    try:
        limit(data, limits)
        pixels = decode(data, limits)
    except InputError as error:
        return {"error": error.name, "detail": str(error)}, []
    except MemoryError:
        detail = "the image takes more memory than its pixels need; save it anew with an image editor"
        return {"error": "ImageTooLarge", "detail": detail}, []
    except Exception as error:
        return {"failure": f"{type(error).__name__}: {error}"}, []
    reply = {"size": pixels.rgb.shape[:2], "dpi": pixels.metadata.dpi, "dates": pixels.metadata.dates}
    planes = [pixels.rgb] if pixels.alpha is None else [pixels.rgb, pixels.alpha]
    return reply, [np.ascontiguousarray(each) for each in planes]


def main() -> None:
    """Decodes pictures until the other side closes its end."""
    replies = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)  # libraries must not write among the replies,
    os.dup2(nothing, 2)  # and hostile files must not write to a log
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which ends this process
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            header, bodies = answer(*receive(sys.stdin.buffer))
            send(replies, header, *bodies)


if __name__ == "__main__":
    main()
