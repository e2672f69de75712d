"""The machine that computes, by name."""

import platform
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
