"""OpenVINO files: made of ONNX ones, an .xml with a .bin beside it."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ..errors import ExportError, first_line
from ..inference.engines import openvino_core
from . import onnx
from .run import Run


def write(network: nn.Module, example: Mapping[str, Tensor], facts: Mapping[str, str], path: Path, half: bool) -> None:
    """Writes a portable network as ``path``, an .xml, and the .bin beside it; arguments as for :func:`.onnx.write`."""
    core = openvino_core()  # before any import of openvino
    import openvino

    between = path.with_suffix(".onnx")
    onnx.write(network, example, {}, between, half)
    model = core.read_model(between)
    for name, value in facts.items():
        model.set_rt_info(value, ["perceptual", name])
    between.unlink()
    try:
        openvino.save_model(model, path, compress_to_fp16=half)
    except RuntimeError as error:  # its only one, which does not say why
        raise ExportError(f"{path.name} cannot be written: {first_line(error)}. Is the disk full?") from error


def load(path: Path) -> Run:
    """What runs the file, on the CPU in float32."""
    engine = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda inputs: engine(dict(inputs))[0]
