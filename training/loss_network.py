"""The loss network φ: a VGG pretrained for image classification, truncated and frozen, with features by layer name."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, VGG19_Weights, vgg16, vgg19

from perceptual.errors import TrainingError, first_line

Convention = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std of the input, RGB in [0, 1]


@dataclass(frozen=True)
class Architecture:
    """A VGG that can be the loss network, and where its weights come from."""

    build: Any
    url: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


STANDARDIZED: Convention = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's own trainings
# VGG16's IMAGENET1K_FEATURES are the original Caffe weights, as in the paper: inputs from 0 to 255 minus a mean.
ARCHITECTURES = {
    "vgg16": Architecture(
        vgg16, VGG16_Weights.IMAGENET1K_FEATURES.url, (0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255)
    ),
    "vgg19": Architecture(vgg19, VGG19_Weights.IMAGENET1K_V1.url, *STANDARDIZED),
}


class LossNetwork(nn.Module):
    """Features of RGB images at named layers, such as ``relu2_2``.

    Args:
        features: The convolutional part of a VGG, up to the deepest layer that will be requested.
        mean: Mean of the input normalization, for images in [0, 1], one value per channel.
        std: Standard deviation of the input normalization.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: nn.Sequential, mean: Iterable[float], std: Iterable[float]) -> None:
        super().__init__()
        self.features = features.eval().requires_grad_(False)
        self.names = layer_names(features)
        self.register_buffer("mean", torch.tensor(list(mean)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(list(std)).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Maps images in [0, 1], N×3×H×W, to the features of ``layers``, N×C×H′×W′ each; stops after the deepest."""
        requested = set(layers)
        if missing := requested - set(self.names):
            raise ValueError(f"no layer {sorted(missing)[0]}; this loss network has {', '.join(self.names)}")
        found: dict[str, Tensor] = {}
        x = (images - self.mean) / self.std
        for name, layer in zip(self.names, self.features, strict=True):
            x = layer(x)
            if name in requested:
                found[name] = x
                if len(found) == len(requested):
                    break
        return found

    def train(self, mode: bool = True) -> "LossNetwork":
        """Stays in evaluation mode: the loss network is never trained."""
        return super().train(False)


def layer_names(features: nn.Sequential) -> list[str]:
    """``conv1_1``, ``relu1_1``, ``conv1_2``, ``relu1_2``, ``pool1``, … for the layers of a VGG, in order."""
    names, block, index = [], 1, 0
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            index += 1
            names.append(f"conv{block}_{index}")
        elif isinstance(layer, nn.ReLU):
            names.append(f"relu{block}_{index}")
        else:
            names.append(f"pool{block}")
            block, index = block + 1, 0
    return names


def load_loss_network(
    name: str, layers: Iterable[str], weights: Path | None = None, sha256: str | None = None
) -> tuple[LossNetwork, str]:
    """Builds a pretrained loss network, cut after the deepest of ``layers``.

    Args:
        name: ``vgg16`` or ``vgg19``.
        layers: Names of layers that will be requested.
        weights: A local ``.safetensors`` or ``.pth`` state dictionary with torchvision's keys; by default
            torchvision's own weights, downloaded once into torch's cache.
        sha256: The local file's expected digest. It is not needed if a safetensors file has ``arch``, ``mean`` and
            ``std`` in its metadata, or if the digest is that of torchvision's file.

    Returns:
        The network, and a one-line description of its weights for the provenance.

    Raises:
        TrainingError: The weights cannot be loaded, have another digest or architecture, or lack a layer.
    """
    architecture = ARCHITECTURES[name]
    with torch.device("meta"):  # without initial weights, which would take seconds
        features = architecture.build(weights=None, init_weights=False).features
    names = layer_names(features)
    if missing := [layer for layer in layers if layer not in names]:
        raise TrainingError(f"{name} has no layer {missing[0]}; it has {', '.join(names)}")
    features = features[: max(names.index(layer) for layer in layers) + 1]
    for module in features:
        if isinstance(module, nn.ReLU):
            module.inplace = False  # must not overwrite features that are returned

    if weights is None:
        state, origin = download_state(name), published(name)
        mean, std = architecture.mean, architecture.std
    else:
        state, (mean, std), digest = read_state(name, weights, sha256)
        origin = published(name) if is_published(name, digest) else f"{weights.name} (SHA-256 {digest})"
    keys = {key: f"features.{key}" for key in features.state_dict()}
    if absent := [key for key in keys.values() if key not in state]:
        raise TrainingError(f"{origin} lacks {absent[0]}, needed for {max(layers, key=names.index)} of {name}")
    try:
        features.load_state_dict({key: state[full].float() for key, full in keys.items()}, assign=True)
    except RuntimeError as error:
        raise TrainingError(f"{origin} does not fit {name}: {str(error).splitlines()[-1].strip()}") from error
    return LossNetwork(features, mean, std), f"{name}, {origin}"


def identity(origin: str) -> str:
    """The identifying part of a description of weights: their digest, or torchvision's name."""
    return origin.rpartition("SHA-256")[2]


def published(name: str) -> str:
    """The name of torchvision's weights in the provenance."""
    return f"torchvision {Path(ARCHITECTURES[name].url).name}"


def is_published(name: str, digest: str) -> bool:
    """Whether a SHA-256 is that of torchvision's weights."""
    return digest.startswith(digest_in(ARCHITECTURES[name].url))


def digest_in(url: str) -> str:
    """The beginning of a file's SHA-256, which torchvision puts into its name."""
    return Path(url).stem.rsplit("-", 1)[-1]


def download_state(name: str) -> dict[str, Tensor]:
    """Torchvision's pretrained weights, from torch's cache or the internet; their digest is checked."""
    url = ARCHITECTURES[name].url
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        cached = Path(torch.hub.get_dir(), "checkpoints", Path(url).name)
        raise TrainingError(
            f"cannot download the loss network ({error}). Fetch {url} on another machine and put it at {cached}, "
            f"or name a local file with --loss-weights"
        ) from error


def read_state(name: str, path: Path, sha256: str | None) -> tuple[dict[str, Tensor], Convention, str]:
    """A local state dictionary, the normalization its weights expect, and its SHA-256, after verification."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if sha256 and not digest.startswith(sha256.lower()):
            raise TrainingError(f"{path} has SHA-256 {digest}, not the expected {sha256}")
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary
        else:
            metadata, loaded = {}, torch.load(path, map_location="cpu", weights_only=True)
            state = {key: value for key, value in loaded.items() if isinstance(value, Tensor)}
    except TrainingError:
        raise
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"cannot read the loss network's weights: {error}") from error
    except Exception as error:  # unpickling raises many kinds
        raise TrainingError(f"{path} is not a state dictionary: {first_line(error)}") from error
    return state, input_convention(name, path, metadata, digest, bool(sha256)), digest


def input_convention(name: str, path: Path, metadata: Mapping[str, str], digest: str, verified: bool) -> Convention:
    """Mean and std for a local file, from its metadata or because it is known to be torchvision's."""
    if "arch" in metadata:
        if name not in metadata["arch"]:
            raise TrainingError(f"{path} contains {metadata['arch']}, not {name}: change --loss-network")
        try:
            mean, std = (tuple(float(x) for x in metadata[key].strip("[]").split(",")) for key in ("mean", "std"))
            if len(mean) != 3 or len(std) != 3:
                raise ValueError
        except (KeyError, ValueError) as error:
            raise TrainingError(f"{path}: its metadata must give mean and std, three numbers each") from error
        return mean, std
    architecture = ARCHITECTURES[name]
    if name == "vgg16" and digest.startswith(digest_in(VGG16_Weights.IMAGENET1K_V1.url)):
        return STANDARDIZED
    if verified or is_published(name, digest):
        return architecture.mean, architecture.std
    raise TrainingError(
        f"{path} (SHA-256 {digest}) is not torchvision's {Path(architecture.url).name} and has no metadata that "
        f"describes it; if you trust it and it expects the same inputs, repeat the command with "
        f"--loss-weights-sha256 {digest}"
    )
