"""Tables, and the machine they were measured on."""

import platform
from pathlib import Path
from typing import Any

import torch


def machine() -> str:
    """Processor or GPU, threads, and versions, in one line."""
    cpu = f"{cpu_name()}, {torch.get_num_threads()} threads"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    return f"{device}; torch {torch.__version__}, Python {platform.python_version()}"


def cpu_name() -> str:
    """The processor's name, as Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows of equal keys as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
