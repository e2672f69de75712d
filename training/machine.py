"""The machine that computes, by name."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


def machine_name(device: torch.device) -> str:
    """The GPU's name, or the processor's with the number of threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, {torch.get_num_threads()} threads"


def quick_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 saves time on a device: on GPUs, and on processors with instructions for it (AVX-512, AMX)."""
    return device.type == "cuda" or not {"avx512_bf16", "amx_bf16"}.isdisjoint(cpu_info("flags").split())


def cpu_name() -> str:
    """The processor's name, as Linux tells it."""
    return cpu_info("model name") or platform.machine()


def cpu_info(key: str) -> str:
    """What Linux tells of the first processor; empty if it does not."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith(key)), "")


@contextmanager
def bfloat16(device: torch.device, *, enabled: bool) -> Iterator[None]:
    """Computes in bfloat16 what tolerates it.

    Products of float32 matrices may take bfloat16 factors with sums in float32: the only such products in a training
    are Gram matrices, whose factors are bfloat16 numbers already, so that nothing is lost.
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
