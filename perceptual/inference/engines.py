"""Engines that run a network's layers: eager PyTorch, torch.compile, or OpenVINO.

An engine maps RGB images in [0, 1] of any size to the layers' outputs. All except ``eager`` compute in bfloat16 where
the processor has instructions for it: results differ by less than one level of 255 on average. bfloat16, OpenVINO and
``compile`` run images one by one: on a CPU, batches are no faster, a picture's result does not depend on its
neighbours, and a non-finite result is computed again in float32.
"""

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
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InvalidOption, first_line
from .networks import ImageTransformationNetwork
from .networks.norms import InstanceNorm, with_norms

Layers = Callable[..., Tensor]  # of images N×3×H×W and, of a network with styles, styles N×P

ENGINES = ("auto", "eager", "compile", "openvino")
COMPILE_SECONDS = 90  # for each network; then plain PyTorch is used. startupTimeout in the yamls depends on it

logger = logging.getLogger(__name__)


def build(engine: str, network: ImageTransformationNetwork, device: torch.device) -> Layers:
    """Prepares a network's layers for an engine; the result replaces its ``transform``.

    Args:
        engine: ``eager`` is plain PyTorch in float32; ``compile`` is ``torch.compile``, which takes up to a minute at
            first; ``openvino`` is OpenVINO, on a CPU; ``auto`` is OpenVINO on a CPU if it is installed. If ``auto`` or
            ``compile`` fails, plain PyTorch runs, on a CPU in bfloat16 if that is fast.
        network: In evaluation mode, on the device.
        device: The device.

    Raises:
        InvalidOption: No such engine; or OpenVINO is not installed, or the device is a GPU.
    """
    check_name(engine)
    if engine == "openvino":
        if device.type != "cpu":
            raise InvalidOption(f"engine: openvino runs on the CPU, and the device is {device}")
        if not find_spec("openvino"):
            raise InvalidOption("engine: openvino is not installed: pip install openvino")
        return openvino(network)
    if engine == "compile" and (layers := compiled(network, device)):
        return layers
    if engine == "auto" and prefers_openvino(device):
        try:
            return openvino(network)
        except Exception as error:
            logger.warning("OpenVINO fails; running plain PyTorch: %s", first_line(error))
    layers = network.transform
    if in_bfloat16(engine, device):
        return Checked(Eager(layers, device, bfloat16=True), layers)
    return Eager(layers, device)


def prefers_openvino(device: torch.device) -> bool:
    """Whether ``auto`` is OpenVINO on a device."""
    return device.type == "cpu" and find_spec("openvino") is not None


def check_name(engine: str) -> None:
    """Raises InvalidOption unless there is an engine of this name."""
    if engine not in ENGINES:
        raise InvalidOption(f"engine: expected {', '.join(ENGINES[:-1])} or {ENGINES[-1]}, got {engine!r}")


def in_bfloat16(engine: str, device: torch.device) -> bool:
    """Whether an engine computes in bfloat16 on a device."""
    plain = engine == "eager" or (engine == "auto" and device.type != "cpu")
    return not plain and quick_in_bfloat16(device)


class Eager:
    """Plain PyTorch.

    Args:
        layers: The layers, on the device.
        device: The device, for autocast.
        bfloat16: Whether autocast runs eligible operations in bfloat16.
    """

    def __init__(self, layers: Layers, device: torch.device, *, bfloat16: bool = False) -> None:
        self.layers = layers
        self.device = device
        self.bfloat16 = bfloat16

    def __call__(self, x: Tensor, *style: Tensor) -> Tensor:
        """Runs a batch, N×C×H×W; the layout is the one in which PyTorch's convolutions are fastest."""
        x = x.contiguous(memory_format=torch.channels_last)
        # Cloned, as PyTorch compiles again for tensors that were not created in inference mode.
        style = tuple(each.clone() for each in style)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.layers(x, *style)


class Checked:
    """Runs an engine of lower precision than float32; if its result is not finite, runs the layers in float32.

    Args:
        engine: The engine, which runs image by image.
        layers: The layers for float32.
    """

    def __init__(self, engine: Layers, layers: nn.Module) -> None:
        self.engine = engine
        self.layers = layers

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Runs a batch: images N×C×H×W and, of a network with styles, N×P."""
        results = [self.run(*each) for each in zip(*(tensor.split(1) for tensor in inputs), strict=True)]
        return results[0] if len(results) == 1 else torch.cat(results)

    def run(self, x: Tensor, *style: Tensor) -> Tensor:
        """Runs an image, 1×C×H×W."""
        result = self.engine(x, *style).float()
        return result if result.sum().isfinite() else Eager(self.layers, x.device)(x, *style)


def compiled(network: ImageTransformationNetwork, device: torch.device) -> Layers | None:
    """A network's layers compiled by PyTorch for all sizes; None, with a warning, if that fails or takes too long."""
    layers, half = network.transform, quick_in_bfloat16(device)
    engine = Eager(torch.compile(layers, dynamic=True), device, bfloat16=half)
    plain = Eager(layers, device, bfloat16=half)
    example = [each.to(device) for each in network.example]
    failures: list[str] = []

    def run() -> None:
        try:
            with torch.inference_mode():
                engine(*example)
        except Exception as error:
            failures.append(first_line(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(COMPILE_SECONDS)
    if thread.is_alive():
        failures.append(f"not done after {COMPILE_SECONDS} s")
    if failures:
        logger.warning("torch.compile fails; running plain PyTorch: %s", failures[0])
        return None

    def choose(x: Tensor, *style: Tensor) -> Tensor:
        # For small images PyTorch chooses other convolutions on a CPU, and would compile again, which takes a minute.
        return (plain if x.numel() < example[0].numel() else engine)(x, *style)

    return Checked(choose, layers)


def openvino(network: ImageTransformationNetwork) -> Layers:
    """A network's layers compiled by OpenVINO for all sizes and styles, on as many threads as PyTorch uses."""
    core = openvino_core()
    from openvino import convert_model

    layers, example = network.transform, network.example
    plain = with_norms(layers, OneImageNorm).to(memory_format=torch.contiguous_format)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # tracing is deprecated, and warns about values that become constants
        # Traced here: OpenVINO would have PyTorch check the trace, which takes three times as long as all the rest.
        traced = torch.jit.trace(plain, example, check_trace=False)
        model = convert_model(
            traced, example_input=example, input=[[1, 3, -1, -1], *([*each.shape] for each in example[1:])]
        )
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16" if quick_in_bfloat16(torch.device("cpu")) else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # every process would pin its threads to the same first cores
        "CPU_RUNTIME_CACHE_CAPACITY": "0",  # the cache would grow with every new size of picture
    }
    engine = core.compile_model(model, "CPU", settings)

    def run(*inputs: Tensor) -> Tensor:
        # One request object for each call: calls may come from several threads, and its memory is freed.
        request = engine.create_infer_request()
        return torch.from_numpy(request.infer([each.contiguous().numpy() for each in inputs], share_inputs=True)[0])

    return Checked(run, layers)


@cache
def openvino_core() -> Any:
    """OpenVINO's ``Core``, one for the whole process.

    Each ``Core`` installs an alternative signal stack, and unmaps it when it is destroyed. A later ``Core`` may restore
    that stack, and the next signal would then kill the process.
    """
    # The import would send telemetry to Google Analytics; OpenVINO works without this package.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    from openvino import Core

    return Core()


class OneImageNorm(InstanceNorm):
    """An instance norm for one image, in the form that OpenVINO runs fastest."""

    one: Tensor

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.register_buffer("one", torch.ones(features, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Maps 1×C×H×W to the same shape, by a style 1×P."""
        scale, shift = self.parameters_of(style)
        # OpenVINO computes in the layout of most inputs of an operation. Convolutions by 1 give scale and shift the
        # layout of x. Otherwise x would be copied to their layout and back, which makes the network 1.5 times slower.
        scale, shift = (F.conv2d(each[..., None, None], self.one, groups=self.features) for each in (scale, shift))
        return F.instance_norm(x, eps=self.eps) * scale + shift


def quick_in_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16: GPUs since Ampere, processors with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(cpu_flags())


def cpu_flags() -> list[str]:
    """Feature flags of the processor, from /proc/cpuinfo; empty on systems other than Linux."""
    info = Path("/proc/cpuinfo")
    return info.read_text().split() if info.exists() else []
