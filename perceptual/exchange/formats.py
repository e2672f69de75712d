"""The formats of exported networks, each a module of that name in this room."""

# By format, how its file must end.
FORMATS = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".pt"}
