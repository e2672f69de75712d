"""How a network's layers are run: by PyTorch as it is, compiled by it, or by OpenVINO.

An engine maps RGB images in [0, 1] to what the layers make of them, for any size. All but ``eager`` compute in bfloat16
where the processor has instructions for it: results differ by less than one level of 255 in the mean. These, and all of
OpenVINO and ``compile``, run images one by one: on a CPU, a batch is no faster, a picture's result does not depend on
its neighbours, and one whose result is not finite is run again in float32.
"""

import copy
import logging
import sys
import threading
import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidOption, first_line

Layers = Callable[[Tensor], Tensor]

ENGINES = ("auto", "eager", "compile", "openvino")
COMPILE_SECONDS = 90  # for each network, after which PyTorch's compiler is given up; see startupTimeout in the yamls
EXAMPLE = 1, 3, 64, 96  # an image; not a square, so that compilers do not take all for such

logger = logging.getLogger(__name__)


def build(engine: str, layers: nn.Sequential, device: torch.device) -> Layers:
    """Makes a network's layers ready to be run.

    Args:
        engine: ``eager`` is PyTorch as it is, in float32; ``compile`` is ``torch.compile``, which takes up to a minute
            at first; ``openvino`` is OpenVINO, on a CPU. ``auto`` is OpenVINO on a CPU if it is installed. Where that
            or ``compile`` fails, it is PyTorch as it is, on a CPU in bfloat16 where that is quick.
        layers: The ``transform`` of a network in evaluation mode, on the device.
        device: Where they run.

    Raises:
        InvalidOption: No such engine; or OpenVINO is not installed, or asked for on a GPU.
    """
    if engine not in ENGINES:
        raise InvalidOption(f"engine: expected {', '.join(ENGINES[:-1])} or {ENGINES[-1]}, got {engine!r}")
    if engine == "openvino":
        if device.type != "cpu":
            raise InvalidOption(f"engine: openvino runs on the CPU, and the device is {device}")
        if not find_spec("openvino"):
            raise InvalidOption("engine: openvino is not installed: pip install openvino")
        return openvino(layers)
    if engine == "compile" and (made := compiled(layers, device)):
        return made
    if engine == "auto" and device.type == "cpu" and find_spec("openvino"):
        try:
            return openvino(layers)
        except Exception as error:
            logger.warning("OpenVINO fails; running PyTorch as it is: %s", first_line(error))
    if in_bfloat16(engine, device):
        return Checked(Eager(layers, device, bfloat16=True), layers)
    return Eager(layers, device)


def in_bfloat16(engine: str, device: torch.device) -> bool:
    """Whether an engine computes in bfloat16 on a device."""
    plain = engine == "eager" or (engine == "auto" and device.type != "cpu")
    return not plain and quick_in_bfloat16(device)


class Eager:
    """PyTorch as it is.

    Args:
        layers: On the device.
        device: Its kind decides what autocast does.
        bfloat16: Whether autocast runs eligible operations in bfloat16.
    """

    def __init__(self, layers: Layers, device: torch.device, *, bfloat16: bool = False) -> None:
        self.layers = layers
        self.device = device
        self.bfloat16 = bfloat16

    def __call__(self, x: Tensor) -> Tensor:
        """Runs a batch, N×C×H×W; the layout is the one in which PyTorch's convolutions are fastest."""
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.layers(x)


class Checked:
    """An engine of less range than float32, and float32 where its result is not finite.

    Args:
        engine: To be tried first, image by image.
        layers: As they are.
    """

    def __init__(self, engine: Layers, layers: nn.Module) -> None:
        self.engine = engine
        self.layers = layers

    def __call__(self, x: Tensor) -> Tensor:
        """Runs a batch, N×C×H×W."""
        made = [self.run(each) for each in x.split(1)]
        return made[0] if len(made) == 1 else torch.cat(made)

    def run(self, x: Tensor) -> Tensor:
        """Runs an image, 1×C×H×W."""
        made = self.engine(x).float()
        return made if made.sum().isfinite() else Eager(self.layers, x.device)(x)


def compiled(layers: nn.Sequential, device: torch.device) -> Layers | None:
    """The layers compiled by PyTorch for all sizes; None, and a line in the log, if that fails or takes too long."""
    engine = Eager(torch.compile(layers, dynamic=True), device, bfloat16=quick_in_bfloat16(device))
    example = torch.zeros(EXAMPLE, device=device)
    failures: list[str] = []

    def run() -> None:
        try:
            with torch.inference_mode():
                engine(example)
        except Exception as error:
            failures.append(first_line(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(COMPILE_SECONDS)
    if thread.is_alive():
        failures.append(f"not done after {COMPILE_SECONDS} s")
    if failures:
        logger.warning("torch.compile fails; running PyTorch as it is: %s", failures[0])
        return None
    return Checked(engine, layers)


def openvino(layers: nn.Sequential) -> Layers:
    """The layers compiled by OpenVINO for all sizes, on as many threads as PyTorch has."""
    core = openvino_core()
    from openvino import convert_model

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # tracing is deprecated, and warns of what it makes constant
        example = torch.zeros(EXAMPLE)
        # Traced here: OpenVINO would have PyTorch check the trace too, which takes three times as long as all the rest.
        traced = torch.jit.trace(with_instance_norm(layers), example, check_trace=False)
        model = convert_model(traced, example_input=example, input=[-1, 3, -1, -1])
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16" if quick_in_bfloat16(torch.device("cpu")) else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "CPU_RUNTIME_CACHE_CAPACITY": "0",  # it would keep what it prepared for every size of picture that ever came
    }
    network = core.compile_model(model, "CPU", settings)

    def run(x: Tensor) -> Tensor:
        # A request of its own for each call: they may come from several threads, and it frees its memory.
        request = network.create_infer_request()
        return torch.from_numpy(request.infer([x.contiguous().numpy()], share_inputs=True)[0])

    return Checked(run, layers)


@cache
def openvino_core() -> Any:
    """OpenVINO, once for the whole process.

    Each ``Core`` sets aside a stack for signals, and unmaps it when it ends, though a later one may have noted it as
    the stack to go back to: the next signal would then kill the process.
    """
    # Otherwise the import alone tells Google Analytics of this machine; OpenVINO does without the package.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    from openvino import Core

    return Core()


def with_instance_norm(layers: nn.Sequential) -> nn.Sequential:
    """A copy with PyTorch's own instance norm, which OpenVINO runs faster than group norm."""
    copied = copy.deepcopy(layers).to(memory_format=torch.contiguous_format)
    for parent in list(copied.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, nn.GroupNorm):
                same = nn.InstanceNorm2d(norm.num_channels, norm.eps, affine=True).eval()
                same.load_state_dict(norm.state_dict())
                setattr(parent, name, same)
    return copied


def quick_in_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16: GPUs since Ampere, processors with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(cpu_flags())


def cpu_flags() -> list[str]:
    """Names of what the processor can do, as Linux tells them; none elsewhere."""
    info = Path("/proc/cpuinfo")
    return info.read_text().split() if info.exists() else []
