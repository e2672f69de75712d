"""The formats of exported networks; each has a module of its name in this package."""

# The file's ending by format.
FORMATS = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".pt"}
