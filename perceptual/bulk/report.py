"""The report: a parquet file with a row for each photo, and counts by status."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .converter import FAILED, KEPT, ROWS
from .job import REPORT
from .places import Place, errors_about
from .planning import Task

ROWS_PER_GROUP = 10_000  # rows that are written together


class Report:
    """Writes rows as they arrive."""

    def __init__(self, stream: Any) -> None:
        self.writer = pq.ParquetWriter(stream, ROWS)
        self.pending: list[pa.Table] = []
        self.counts: Counter[str] = Counter()

    def add(self, rows: pa.Table) -> None:
        """Adds rows as :data:`.converter.ROWS`."""
        self.counts.update(rows["status"].to_pylist())
        self.pending.append(rows)
        if sum(map(len, self.pending)) >= ROWS_PER_GROUP:
            self.flush()

    def add_tasks(self, tasks: Iterable[Task], status: str, error: str | None = None) -> None:
        """Adds photos that no actor reported."""
        rows = [
            {"photo": str(task.photo), "result": str(task.result), "status": status, "error": error} for task in tasks
        ]
        self.add(pa.Table.from_pylist(rows, schema=ROWS))

    def flush(self) -> None:
        """Writes the rows that are pending."""
        self.writer.write_table(pa.concat_tables([ROWS.empty_table(), *self.pending]))
        self.pending.clear()


@contextmanager
def reporting(output: Place, kept: Iterable[Task]) -> Iterator[Report]:
    """A report beside the results, which is complete even if the job is stopped."""
    stopped: BaseException | None = None
    with errors_about(output.address), output.writing(output.below(REPORT)) as stream:
        report = Report(stream)
        report.add_tasks(kept, KEPT)
        try:
            yield report
        except BaseException as error:
            stopped = error
        report.flush()
        report.writer.close()
    if stopped:
        raise stopped


def lost(tasks: Iterable[Task], reported: set[str], report: Report) -> None:
    """Adds the photos that no actor reported, as their block ended the actor's process repeatedly."""
    missing = [task for task in tasks if str(task.result) not in reported]
    report.add_tasks(missing, FAILED, "the processes that converted it, or photos beside it, died: see Ray's logs")
