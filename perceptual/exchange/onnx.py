"""ONNX files: written by PyTorch's exporter, run by onnxruntime."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .run import Run

OPSET = 18  # supported by onnxruntime and its web version, TensorRT and OpenVINO


def write(network: nn.Module, example: Mapping[str, Tensor], facts: Mapping[str, str], path: Path, half: bool) -> None:
    """Writes a portable network as one ONNX file.

    Args:
        network: As :func:`.portable.portable` makes it.
        example: Its inputs by name: images N×3×H×W, styles N×P.
        facts: Metadata.
        path: The file.
        half: Whether to store the weights of convolutions in half precision.
    """
    import onnx
    import onnxscript  # noqa: F401 - the exporter needs it; if it is missing, our own error says how to install it

    model = exported(network, example)
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")  # stack traces, with paths of this machine
    if half:
        halve(model)
    onnx.helper.set_model_props(model, dict(facts))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def exported(network: nn.Module, example: Mapping[str, Tensor]) -> Any:
    """The exporter's model, for any number of images of any size."""
    from torch.export import Dim

    batch = Dim("batch")
    sizes = {"images": {0: batch, 2: Dim("height"), 3: Dim("width")}, "style": {0: batch}}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's warnings of its own deprecated functions
        program = torch.onnx.export(
            network,
            tuple(example.values()),
            dynamo=True,
            dynamic_shapes=tuple(sizes[name] for name in example),
            input_names=[*example],
            output_names=["result"],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def halve(model: Any) -> None:
    """Stores the kernels of convolutions in half precision; a Cast makes them float32 when the model is loaded."""
    import onnx

    casts = []
    kernels = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    for weight in model.graph.initializer:
        if weight.name in kernels and weight.data_type == onnx.TensorProto.FLOAT:  # large kernels are halves already
            name, values = weight.name, onnx.numpy_helper.to_array(weight)
            weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)


def load(path: Path) -> Run:
    """A function that runs the file on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["result"], dict(inputs))[0]
