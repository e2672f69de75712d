"""Tables, and the machine they were measured on."""

import platform
from typing import Any

import torch

from perceptual.predictor import pick_device
from perceptual_training.machine import machine_name


def machine() -> str:
    """Processor or GPU, threads, and versions, in one line."""
    return f"{machine_name(pick_device(None))}; torch {torch.__version__}, Python {platform.python_version()}"


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows of equal keys as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
