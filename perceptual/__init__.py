"""Real-time style transfer and super-resolution with perceptual losses, trained here, served by TorchServe.

    >>> import perceptual
    >>> predictor = perceptual.load("starry_night")
    >>> predictor.stylize("photo.jpg").save("stylized.jpg")

The names in ``__all__`` are the whole public surface. They are imported when first used, so that importing the
package does not import torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "ImageTooLarge": "errors",
    "InferenceClient": "client.inference",
    "InputError": "errors",
    "InvalidImage": "errors",
    "InvalidOption": "errors",
    "ManagementClient": "client.management",
    "NotAcceptable": "errors",
    "PerceptualError": "errors",
    "Predictor": "inference.predictor",
    "Server": "serving.server",
    "ServerError": "errors",
    "StyleNetwork": "inference.networks",
    "SuperResolutionNetwork": "inference.networks",
    "Tokens": "client.tokens",
    "TrainingError": "errors",
    "UnsupportedFormat": "errors",
    "WeightsError": "errors",
    "find_server": "client.addresses",
    "load": "inference.predictor",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
