"""Of which photo each result was made, and since when with the same options; written beside the results.

The report cannot tell this: it has no rows of the results that a job made just before it was killed.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import PerceptualError
from ..locks import take
from .job import NOTES
from .places import Place, errors_about

ORIGINS = "bulk.photos.parquet"  # beside the results: the photo of each
LOCK = "bulk.lock"  # beside the results while a job runs
COLUMNS = pa.schema(
    [
        ("result", pa.string()),  # below the output
        ("photo", pa.string()),
        ("since", pa.int64()),  # null: the time of the file itself
    ]
)


class Origin(NamedTuple):
    """What a result is made of.

    Attributes:
        photo: The photo's path, without links.
        since: An older result is of another photo, or has other options. In nanoseconds since 1970; None: made now.
    """

    photo: str
    since: int | None


def known(output: Place, notes: bytes) -> dict[str, Origin]:
    """The origins of the results of earlier jobs, by path below the output; empty if their notes were others.

    Raises:
        InputError: The output cannot be read.
    """
    files, path = output.filesystem, output.below(ORIGINS)
    with errors_about(output.address):
        noted, there = files.get_file_info([output.below(NOTES), path])
        if not (noted.is_file and there.is_file) or output.read(noted.path) != notes:
            return {}
        table = pq.read_table(pa.BufferReader(output.read(path)), schema=COLUMNS)
    since = table["since"].fill_null(there.mtime_ns)
    origins = map(Origin, table["photo"].to_pylist(), since.to_pylist())
    return dict(zip(table["result"].to_pylist(), origins, strict=True))


def note(output: Place, origins: Mapping[str, Origin], notes: bytes) -> None:
    """Writes origins, and how results are made. A job calls it before its first result.

    Raises:
        InputError: The output cannot be written.
    """
    photos, since = zip(*origins.values(), strict=True)
    stream = pa.BufferOutputStream()
    pq.write_table(pa.table([list(origins), photos, since], schema=COLUMNS), stream)
    with errors_about(output.address):
        output.write(output.below(ORIGINS), stream.getvalue())
        output.write(output.below(NOTES), notes)  # last: origins of former options must never be beside new notes


@contextmanager
def alone(output: Place) -> Iterator[None]:
    """Locks an output for the length of a block, in which no other job writes there.

    A bucket has no locks: there, the lock's file only shows early that the output can be written to.

    Raises:
        PerceptualError: Another job writes there.
        InputError: The output cannot be written to.
    """
    path = output.below(LOCK)
    with errors_about(output.address):
        lock = taken(output, path)
    with lock:
        try:
            yield
        finally:
            with suppress(OSError):  # some keys may write, but not delete
                output.remove([path])


def taken(output: Place, path: str) -> AbstractContextManager[object]:
    """The lock of an output, held. Raises PerceptualError if another job holds it, and OSError."""
    if not output.is_local:
        if not output.filesystem.get_file_info(path).is_file:
            output.write(path, b"")
        return nullcontext()
    try:
        return take(Path(path))
    except BlockingIOError as error:
        raise PerceptualError(f"{output.address}: another job writes there; wait for its end") from error
