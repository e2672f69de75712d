"""OpenVINO files, an .xml with a .bin beside it, converted from ONNX."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ..errors import ExportError, first_line
from ..inference.engines import openvino_core
from . import onnx
from .run import Run


def write(network: nn.Module, example: Mapping[str, Tensor], facts: Mapping[str, str], path: Path, half: bool) -> None:
    """Writes a portable network as ``path``, an .xml, and the .bin beside it; arguments as for :func:`.onnx.write`."""
    core = openvino_core()  # must come before any import of openvino
    import openvino

    intermediate = path.with_suffix(".onnx")
    onnx.write(network, example, {}, intermediate, half)
    model = core.read_model(intermediate)
    for name, value in facts.items():
        model.set_rt_info(value, ["perceptual", name])
    intermediate.unlink()
    try:
        openvino.save_model(model, path, compress_to_fp16=False)  # the kernels to be halved are halves in ONNX
    except RuntimeError as error:  # which does not say why
        raise ExportError(f"{path.name} cannot be written: {first_line(error)}. Is the disk full?") from error


def load(path: Path) -> Run:
    """A function that runs the file on the CPU in float32."""
    engine = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda inputs: engine(dict(inputs))[0]
