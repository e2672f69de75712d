"""Real-time style transfer and super-resolution with perceptual losses, trained here, served by TorchServe.

    >>> import perceptual
    >>> predictor = perceptual.load("styles")
    >>> predictor.stylize("photo.jpg", style="starry_night").save("stylized.jpg")

The names in ``__all__`` are the whole public surface. They are imported when first used, so that importing the
package does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client.addresses import RemoteServer, RunningServer, find_server, server_at
    from .client.inference import InferenceClient
    from .client.management import ManagementClient
    from .client.model import Model
    from .client.tokens import Tokens
    from .errors import (
        AlreadyRegistered,
        ArchiveError,
        DeadlineExceeded,
        ExportError,
        ImageTooLarge,
        InputError,
        InternalError,
        InvalidImage,
        InvalidOption,
        InvalidVideo,
        MissingExtra,
        NotAcceptable,
        OutOfMemory,
        PerceptualError,
        ServerError,
        TrainingError,
        UnknownStyle,
        UnsupportedFormat,
        WeightsError,
        WorkerDied,
        WorkersFailed,
    )
    from .inference.networks import StyleNetwork, SuperResolutionNetwork
    from .inference.predictor import Predictor, load
    from .naming import ModelVersion
    from .serving.server import Server
    from .video.conversion import VideoReport, stylize_video, upscale_video

__version__ = "0.2.0"

__all__ = [
    "AlreadyRegistered",
    "ArchiveError",
    "DeadlineExceeded",
    "ExportError",
    "ImageTooLarge",
    "InferenceClient",
    "InputError",
    "InternalError",
    "InvalidImage",
    "InvalidOption",
    "InvalidVideo",
    "ManagementClient",
    "MissingExtra",
    "Model",
    "ModelPaused",
    "ModelVersion",
    "NotAcceptable",
    "OutOfMemory",
    "PerceptualError",
    "Predictor",
    "RemoteServer",
    "RunningServer",
    "Server",
    "ServerError",
    "StyleNetwork",
    "SuperResolutionNetwork",
    "Tokens",
    "TrainingError",
    "UnknownStyle",
    "UnsupportedFormat",
    "VideoReport",
    "WeightsError",
    "WorkerDied",
    "WorkersFailed",
    "__version__",
    "find_server",
    "load",
    "server_at",
    "stylize_video",
    "upscale_video",
]

# The modules of the names; all others are in errors.
_MODULES = {
    "InferenceClient": "client.inference",
    "ManagementClient": "client.management",
    "Model": "client.model",
    "ModelVersion": "naming",
    "Predictor": "inference.predictor",
    "RemoteServer": "client.addresses",
    "RunningServer": "client.addresses",
    "Server": "serving.server",
    "StyleNetwork": "inference.networks",
    "SuperResolutionNetwork": "inference.networks",
    "Tokens": "client.tokens",
    "VideoReport": "video.conversion",
    "find_server": "client.addresses",
    "load": "inference.predictor",
    "server_at": "client.addresses",
    "stylize_video": "video.conversion",
    "upscale_video": "video.conversion",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .extras import needing_extras

    with needing_extras():
        return getattr(import_module(f".{_MODULES.get(name, 'errors')}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
