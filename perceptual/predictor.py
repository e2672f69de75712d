"""A trained network, ready to use: tensors in, tensors out; or pictures in, pictures out."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from . import histogram, images
from .errors import InvalidOption, WeightsError
from .images import Picture
from .networks import ImageTransformationNetwork, luma
from .options import StyleOptions, UpscaleOptions
from .resampling import resize_bicubic
from .settings import parse
from .tiles import run_in_tiles
from .weights import find_weights, load_network

TILE = 1024  # side of an output tile; the default network of super-resolution then takes 1 to 1.5 GB of memory

Engine = Literal["auto", "eager"]


def load(name_or_path: str | Path, device: str | None = None, engine: Engine = "auto") -> "Predictor":
    """Loads a trained network.

    Args:
        name_or_path: A weights file, or the name of a network that ships, such as ``starry_night``.
        device: ``cpu``, ``cuda``, ``cuda:1``, …; by default the first GPU if there is one.
        engine: How the network is run; ``eager`` is PyTorch as it is, ``auto`` the fastest that is safe.

    Raises:
        WeightsError: No such file or name, or the file is damaged.
        InvalidOption: No such device or engine.
    """
    if engine not in ("auto", "eager"):
        raise InvalidOption(f"engine: expected auto or eager, got {engine!r}")
    network, metadata = load_network(find_weights(name_or_path))
    return Predictor(network, metadata, device=device)


class Predictor:
    """A network on a device. Calls are independent of each other.

    Args:
        network: In ``eval`` mode; moved to the device.
        metadata: As from :func:`perceptual.weights.read_metadata`; kept for the caller.
        device: As in :func:`load`.
    """

    def __init__(
        self, network: ImageTransformationNetwork, metadata: dict[str, Any], *, device: str | None = None
    ) -> None:
        self.device = pick_device(device)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.metadata = metadata

    @torch.inference_mode()
    def __call__(self, batch: Tensor) -> Tensor:
        """Runs the network on RGB images in [0, 1], float, N×3×H×W.

        Returns:
            The same type on the same device, in the same form; of super-resolution, larger by ``network.scale``.

        Raises:
            ValueError: The tensor has another shape or type.
        """
        if batch.ndim != 4 or batch.shape[1] != 3 or not batch.is_floating_point():
            raise ValueError(f"expected a float tensor N×3×H×W, got {batch.dtype} {tuple(batch.shape)}")
        x = batch.to(self.device, torch.float32).contiguous(memory_format=torch.channels_last)
        if self.network.reach is not None:
            scale = self.network.scale
            y = run_in_tiles(self.network, x, TILE // scale, self.network.reach, scale)
        else:
            y = self.network(x)
        return y.to(batch.device, batch.dtype)

    def stylize(
        self,
        photo: str | Path | bytes | Image.Image,
        *,
        strength: float = 1.0,
        keep_colors: bool = False,
        max_size: int | None = None,
    ) -> Image.Image:
        """Stylizes one photo: a path, an encoded image, or a PIL image.

        The parameters are those of :class:`perceptual.options.StyleOptions`.

        Raises:
            InputError: The photo cannot be read (see :mod:`perceptual.errors`), or an option is out of range.
            WeightsError: The network is for another task.
        """
        wishes = {"strength": strength, "keep-colors": keep_colors, "max-size": max_size}
        options = parse(StyleOptions, {name: value for name, value in wishes.items() if value is not None})
        return self.stylize_pictures([open_picture(photo)], [options])[0].to_pil()

    def stylize_pictures(self, pictures: Sequence[Picture], options: Sequence[StyleOptions]) -> list[Picture]:
        """Stylizes decoded pictures, each with its own options, in order.

        Pictures of one size run as one batch; padding to a common size would change the statistics that instance
        norm takes over the whole image.
        """
        self.require("style")
        photos = [images.shrink(picture, wish.max_size) for picture, wish in zip(pictures, options, strict=True)]
        results = list(photos)
        for i, original, styled in self.run_by_size(photos):
            results[i] = Picture(to_uint8(steer(original, styled, options[i])), photos[i].alpha)
        return results

    def upscale(
        self,
        photo: str | Path | bytes | Image.Image,
        *,
        histogram_matching: bool = True,
        low_frequencies: bool = False,
    ) -> Image.Image:
        """Enlarges one photo by ``network.scale``: a path, an encoded image, or a PIL image.

        The parameters are those of :class:`perceptual.options.UpscaleOptions`.

        Raises:
            InputError: The photo cannot be read (see :mod:`perceptual.errors`), or an option is out of range.
            WeightsError: The network is for another task.
        """
        wishes = {"histogram-matching": histogram_matching, "low-frequencies": low_frequencies}
        return self.upscale_pictures([open_picture(photo)], [parse(UpscaleOptions, wishes)])[0].to_pil()

    def upscale_pictures(self, pictures: Sequence[Picture], options: Sequence[UpscaleOptions]) -> list[Picture]:
        """Enlarges decoded pictures, each with its own options, in order; alpha bicubically."""
        self.require("super-resolution")
        results = list(pictures)
        for i, original, output in self.run_by_size(pictures):
            if options[i].histogram_matching:
                matched = histogram.match(output[None], original[None], low_frequencies=options[i].low_frequencies)
                output = matched[0]
            results[i] = Picture(to_uint8(output), enlarged(pictures[i].alpha, self.network.scale))
        return results

    def require(self, task: str) -> None:
        """Raises WeightsError unless the network is for a task."""
        if self.network.task != task:
            raise WeightsError(f"these weights are for {self.network.task}, not for {task}")

    def run_by_size(self, pictures: Sequence[Picture]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Runs pictures of one size as one batch: yields each one's index, itself and its output, in [0, 1]."""
        groups = defaultdict(list)
        for index, picture in enumerate(pictures):
            groups[picture.rgb.shape].append(index)
        for indices in groups.values():
            originals = torch.stack([pictures[i].rgb for i in indices]).to(self.device).float() / 255
            yield from zip(indices, originals, self(originals), strict=True)


def steer(original: Tensor, styled: Tensor, options: StyleOptions) -> Tensor:
    """Applies ``keep_colors`` and ``strength`` to one stylized image, 3×H×W in [0, 1]."""
    if options.keep_colors:
        # In YCbCr the chroma planes are differences to the luma, so exchanging the luma is adding its difference.
        styled = original + luma((styled - original)[None])[0]
    return torch.lerp(original, styled.clamp(0, 1), options.strength)


def enlarged(alpha: Tensor | None, scale: int) -> Tensor | None:
    """Opacity, uint8 1×H×W, ``scale`` times larger."""
    return None if alpha is None else to_uint8(resize_bicubic(alpha[None].float() / 255, scale)[0])


def to_uint8(image: Tensor) -> Tensor:
    """Rounds an image in [0, 1] to bytes on the CPU."""
    return (image * 255).round().clamp(0, 255).to(torch.uint8).cpu()


def open_picture(photo: str | Path | bytes | Image.Image) -> Picture:
    """Decodes a path, an encoded image, or a PIL image."""
    if isinstance(photo, Image.Image):
        return images.from_pil(photo)
    return images.decode(photo if isinstance(photo, bytes | bytearray) else images.read(photo))


def pick_device(device: str | None) -> torch.device:
    """The device named, or the best there is. Raises InvalidOption if torch cannot use it."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise InvalidOption(f"device: cannot use {device!r}: {str(error).splitlines()[0]}") from error
