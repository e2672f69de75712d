"""The device: its name and its numerical precision."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


def exact_float32() -> None:
    """Disables TF32 on GPUs, so that measurements agree between machines."""
    torch.backends.cudnn.allow_tf32 = False


def machine_name(device: torch.device) -> str:
    """The GPU's name, or the processor's with the number of threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, {torch.get_num_threads()} threads"


def cpu_name() -> str:
    """The processor's name, from /proc/cpuinfo."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


@contextmanager
def bfloat16(device: torch.device, *, enabled: bool) -> Iterator[None]:
    """Runs eligible operations in bfloat16.

    Also allows products of float32 matrices to use bfloat16 factors and float32 sums. In a training these are the
    Gram matrices, whose factors are bfloat16 numbers already, and the spectra of the grid loss, where the error is less
    than a visible grid.
    """
    if not enabled:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast(device.type, torch.bfloat16):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
