"""Prints tables and JSON."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any


def add_json(parser: Any) -> None:
    """Adds the option that asks for JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def as_json(value: Any) -> str:
    """A value as JSON; infinity and NaN, which JSON lacks, become null."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False)


def plain(value: Any) -> Any:
    """A value converted to the types of JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Any:
    """A table without a frame, for rich."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    result = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        result.add_row(*map(escape, row))
    return result


def console() -> Any:
    """The console for tables; in a pipe it is so wide that nothing is cut off."""
    from rich.console import Console

    printer = Console(highlight=False)
    return printer if printer.is_terminal else Console(highlight=False, width=400)
