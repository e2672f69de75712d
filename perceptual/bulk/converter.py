"""The actor: reads photos, converts them, writes the results, and reports the outcome of each."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import torch

from ..errors import DeadlineExceeded, InputError, OutOfMemory, in_one_line
from ..files import FULL
from ..inference.codecs.process import Decoder
from .job import Job
from .places import Place, reason

MADE, KEPT, FAILED, STOPPED = "made", "kept", "failed", "stopped"  # outcomes of a photo
ROWS = pa.schema(
    [
        ("photo", pa.string()),
        ("result", pa.string()),  # below the output
        ("status", pa.string()),
        ("error", pa.string()),
        ("size", pa.int64()),  # bytes of the result
        ("seconds", pa.float32()),
    ]
)


class Converter:
    """Converts photos, one block in each call; the next photo is read while one is converted.

    Args:
        job: The network and the options.
        places: The file systems of the photos.
        output: The folder of the results.
        format: Of the results.
    """

    def __init__(self, job: Job, places: Sequence[Place], output: Place, format: str) -> None:
        torch.set_num_threads(job.threads)
        self.places, self.output, self.format = places, output, format
        self.decoder = Decoder()  # in a process of its own: if a file crashes a library, only this photo fails
        self.convert = job.conversion(self.decoder.decode)
        self.reader = ThreadPoolExecutor(1)

    def __call__(self, block: pa.Table) -> pa.Table:
        """Converts a block; returns a row for each photo, as :data:`ROWS`.

        Args:
            block: Columns ``place``, an index; ``photo``, a path in that place; ``result``, a path below the output.
        """
        tasks = block.to_pylist()
        contents = ahead(self.reader, [(self.places[each["place"]], each["photo"]) for each in tasks])
        return pa.Table.from_pylist([self.row(*pair) for pair in zip(tasks, contents, strict=True)], schema=ROWS)

    def row(self, task: dict[str, Any], content: "Future[bytes]") -> dict[str, Any]:
        """Converts one photo; returns its row."""
        begin = time.monotonic()
        row = {"photo": self.places[task["place"]].shown(task["photo"]), "result": task["result"], "size": 0}
        row |= self.outcome(content, self.output.below(PurePosixPath(task["result"])))
        return row | {"seconds": time.monotonic() - begin}

    def outcome(self, content: "Future[bytes]", result: str) -> dict[str, Any]:
        """Converts and writes one photo; returns its status, and size or error."""
        try:
            picture = self.convert(content.result(), self.format)
        except (InputError, OutOfMemory, DeadlineExceeded) as error:
            return {"status": FAILED, "error": str(error)}
        except OSError as error:
            return {"status": FAILED, "error": f"cannot read it: {reason(error)}"}
        except Exception as error:  # of any kind: the other photos are converted all the same
            return {"status": FAILED, "error": f"{type(error).__name__}: {in_one_line(error)}"}
        try:
            self.output.write(result, picture)
        except OSError as error:
            status = STOPPED if error.errno in FULL else FAILED
            return {"status": status, "error": f"cannot write {self.output.shown(result)}: {reason(error)}"}
        return {"status": MADE, "size": len(picture)}


def ahead(pool: ThreadPoolExecutor, photos: Sequence[tuple[Place, str]]) -> Iterator["Future[bytes]"]:
    """The contents of photos, each read while the one before it is converted."""
    following = [pool.submit(place.read, path) for place, path in photos[:1]]
    for index in range(len(photos)):
        current = following.pop()
        if index + 1 < len(photos):
            place, path = photos[index + 1]
            following.append(pool.submit(place.read, path))
        yield current
