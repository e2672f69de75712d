"""Tables of figures, shared by the evaluations."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

Row = dict[str, Any]


def averages(rows: Sequence[Row], *by: str) -> list[Row]:
    """One row for each combination of the columns ``by``, in order, with the means of all that are floats."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    return [
        {key: fmean(each[key] for each in group) if isinstance(value, float) else value for key, value in mean.items()}
        for group in groups.values()
        for mean in [{**group[0], "image": "mean"}]
    ]


def encoded(text: str) -> bytes:
    """A report in UTF-8; bytes of file names that are not UTF-8 become escapes."""
    return text.encode(errors="backslashreplace")


def table(rows: Sequence[Row], shown: Callable[[str, Any], str]) -> list[str]:
    """The lines of a Markdown table of rows with the same columns; ``shown`` writes a value by its column's name."""
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return lines + [f"| {' | '.join(shown(name, row[name]) for name in names)} |" for row in rows]
