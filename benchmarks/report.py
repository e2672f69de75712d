"""Writes the report of a benchmark: tables as Markdown and JSON, and the machine."""

import json
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from perceptual.files import write_atomically
from perceptual.inference.predictor import pick_device
from perceptual_training.machine import machine_name
from perceptual_training.report import table

from .timing import Spread

Row = dict[str, Any]
Tables = dict[str, list[Row]]  # by title; the rows of a table have the same columns

PACKAGES = ("torchserve-perceptual", "torch", "torchvision", "openvino", "onnxruntime", "torchserve", "pillow")


def show_progress(message: str) -> None:
    """Shows a benchmark's progress."""
    print(message, file=sys.stderr, flush=True)


def machine() -> dict[str, str]:
    """Processor or GPU, threads, load average and versions."""
    return {
        "machine": machine_name(pick_device(None)),
        "load average before": f"{os.getloadavg()[0]:.1f}",
        "Python": platform.python_version(),
        **installed(PACKAGES),
    }


def installed(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def write(folder: Path, name: str, command: str, facts: dict[str, str], tables: Tables) -> str:
    """Writes ``NAME.md`` and ``NAME.json`` into a folder; returns the former."""
    text = markdown(name, command, facts, tables)
    content = {"benchmark": name, "command": command, "machine": facts, "tables": tables}
    write_atomically(folder / f"{name}.md", text.encode())
    # JSON has no infinity; no table has one either.
    described = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=asdict)
    write_atomically(folder / f"{name}.json", described.encode())
    return text


def markdown(name: str, command: str, facts: dict[str, str], tables: Tables) -> str:
    """A report to read."""
    circumstances = "; ".join(f"{key} {value}" for key, value in facts.items())
    lines = [f"# Benchmark: {name}", "", f"`{command}`", "", circumstances]
    for title, rows in tables.items():
        lines += ["", f"## {title}", "", *table(rows, lambda column, value: shown(value))]
    return "\n".join(lines) + "\n"


def shown(value: Any) -> str:
    """A figure with three significant digits; a spread as ``median (minimum to maximum)``."""
    if isinstance(value, Spread):
        return f"{shown(value.median)} ({shown(value.least)} to {shown(value.most)})"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)
