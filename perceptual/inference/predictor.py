"""The predictor: runs a trained network on tensors or on pictures."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from PIL import Image
from torch import Tensor

from ..errors import InvalidOption, OutOfMemory, WeightsError, first_line, unknown_style
from ..options import FIDELITY, PictureOptions, StyleOptions, UpscaleOptions, check_task
from ..settings import parse
from . import engines, images
from .bands import run_in_bands
from .finishing import enlarged, match_channels, steer, to_bytes
from .grain import with_grain
from .images import Picture
from .metadata import find_weights, known_styles
from .networks import ImageTransformationNetwork, StyleNetwork
from .parts import Part, to_float, whole
from .tiles import run_in_tiles
from .weights import load_network

LEAST_TILE = 128  # side, in pixels; if memory does not hold such a tile, a smaller one would not help

M = TypeVar("M", bound=Callable[..., Any])


def as_out_of_memory(method: M) -> M:
    """Decorates a predictor's method to raise OutOfMemory for PyTorch's out-of-memory error."""

    @wraps(method)
    def wrapper(self: "Predictor", *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except torch.OutOfMemoryError as error:
            smaller = "a smaller picture (max-size)" if self.network.task == "style" else "a smaller picture"
            raise OutOfMemory(
                f"{self.device} has too little memory left: send {smaller} or try again; "
                "if you run the server, use fewer workers on each GPU"
            ) from error

    return cast("M", wrapper)


def load(
    name_or_path: str | Path,
    device: str | None = None,
    engine: str = "auto",
    *,
    styles: Sequence[str | Path] = (),
) -> "Predictor":
    """Loads a trained network.

    Args:
        name_or_path: A weights file, or the name of a network in ``networks/`` or of one that ships, such as
            ``styles``. For a learned style, its trunk must be in the same folder or among these.
        device: ``cpu``, ``cuda``, ``cuda:1``, …; by default the first GPU if there is one.
        engine: How the network is run, as for :func:`perceptual.inference.engines.build`.
        styles: Styles learned on this network, which are added to those it has: files, or names in ``networks/``.

    Raises:
        WeightsError: No such file or name, the file is damaged, or a learned style is of another trunk.
        InvalidOption: No such device or engine, or the engine is not installed.
    """
    file = find_weights(name_or_path)
    network, metadata = load_network(file, [*map(find_weights, styles)])
    return Predictor(network, metadata, file.stem, device=device, engine=engine)


class Observer:
    """Callbacks for the progress of a predictor; the base class ignores them."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Context of a stage: ``infer``, or ``match`` for histogram matching."""
        return nullcontext()

    def tile(self) -> None:
        """Called after each part of the result, or after the whole if it is not divided."""

    def proceed(self) -> None:
        """Called before each part of the work; an exception aborts it."""


UNOBSERVED = Observer()


class Predictor:
    """A network on a device. It has no state: calls are independent of each other.

    Args:
        network: In ``eval`` mode; moved to the device.
        metadata: As from :func:`perceptual.inference.metadata.read_metadata`; kept for the caller.
        name: Name of an only style, if the metadata list no styles.
        device: As in :func:`load`.
        engine: As in :func:`load`.
    """

    def __init__(
        self,
        network: ImageTransformationNetwork,
        metadata: dict[str, Any],
        name: str = "",
        *,
        device: str | None = None,
        engine: str = "eager",
    ) -> None:
        self.device = pick_device(device)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.transform = engines.build(engine, self.network, self.device)
        self.bfloat16 = engines.in_bfloat16(engine, self.device)
        self.metadata = metadata
        self.styles = style_names(network, metadata, name)

    @as_out_of_memory
    @torch.inference_mode()
    def __call__(
        self,
        batch: Tensor,
        *,
        style: str | Mapping[str, float] | None = None,
        stroke: float = 0.0,
        grain: float | None = None,
        fidelity: float | None = None,
        tile: int | None = None,
    ) -> Tensor:
        """Runs the network on RGB images in [0, 1], float, N×3×H×W.

        Args:
            batch: The images.
            style: For all of them, as in :meth:`stylize`.
            stroke: As in :meth:`stylize`.
            grain: As in :meth:`stylize`.
            fidelity: As in :meth:`upscale`.
            tile: Side of the largest square that is run in one pass, in pixels of the result; by default the network's.

        Returns:
            Images of the same type on the same device; of super-resolution, larger by ``network.scale``.

        Raises:
            ValueError: The tensor has another shape or type.
            InputError: An option is out of range or of the other task, or the network has no such style.
            OutOfMemory: A GPU's memory does not even hold a small tile.
        """
        if batch.ndim != 4 or batch.shape[1] != 3 or 0 in batch.shape or not batch.is_floating_point():
            raise ValueError(f"expected a float tensor N×3×H×W, got {batch.dtype} {tuple(batch.shape)}")
        # A stroke of 0 is the default, which networks of the other task must not refuse.
        values = given(style=style, stroke=stroke or None, grain=grain, fidelity=fidelity, tile=tile)
        kind = StyleOptions if self.network.task == "style" else UpscaleOptions
        check_task(values, kind, "this network")
        options = parse(kind, values)
        result = self.empty_result(batch)
        count = self.batch_size(batch.shape[-2:], options.tile)
        for part, results in zip(batch.float().split(count), result.split(count), strict=True):
            conditions = self.conditions([options] * len(part))
            if isinstance(options, StyleOptions):
                part = with_grain(part, self.grain_of([options] * len(part)))
            for place, outputs in self.run(part, conditions, options.tile, UNOBSERVED):
                results[place] = outputs
        return result

    def stylize(
        self,
        photo: str | Path | bytes | Image.Image,
        *,
        style: str | Mapping[str, float] | None = None,
        stroke: float = 0.0,
        grain: float | None = None,
        strength: float = 1.0,
        keep_colors: bool = False,
        max_size: int | None = None,
        tile: int | None = None,
    ) -> Image.Image:
        """Stylizes one photo: a path, an encoded image, or a PIL image.

        The parameters are those of :class:`perceptual.options.StyleOptions`; a mixture of styles may also be a mapping
        such as ``{"starry_night": 0.6, "udnie": 0.4}``. A network of one style needs no name.

        Raises:
            InputError: The photo cannot be read (see :mod:`perceptual.errors`), an option is out of range, or the
                network has no such style.
            WeightsError: The network is for another task.
        """
        values = given(
            style=style,
            stroke=stroke,
            grain=grain,
            strength=strength,
            keep_colors=keep_colors,
            max_size=max_size,
            tile=tile,
        )
        options = parse(StyleOptions, values)
        return self.stylize_pictures([open_picture(photo)], [options])[0].to_pil()

    @as_out_of_memory
    @torch.inference_mode()
    def stylize_pictures(
        self, pictures: Sequence[Picture], options: Sequence[StyleOptions], observer: Observer = UNOBSERVED
    ) -> list[Picture]:
        """Stylizes decoded pictures, each with its own options, in order.

        Pictures of one size run as one batch; padding to a common size would change the statistics that instance
        norm takes over the whole image.
        """
        self.require("style")
        photos = [
            images.shrink(picture, each.max_size).without_hidden_colors()
            for picture, each in zip(pictures, options, strict=True)
        ]
        results = list(photos)
        styles = self.conditions(options)
        for indices, batch in self.batches(photos, options):
            with observer.stage("infer"):
                styled = self.stylize_batch(batch, styles[indices], [options[i] for i in indices], observer).cpu()
            for i, rgb in zip(indices, styled, strict=True):
                results[i] = Picture(rgb, photos[i].alpha, photos[i].metadata)
        return results

    def stylize_batch(
        self, photos: Tensor, styles: Tensor, options: Sequence[StyleOptions], observer: Observer
    ) -> Tensor:
        """Stylizes bytes N×3×H×W, which share ``tile``, each in its style, N×P, and with its options."""
        result = self.empty_result(photos)
        grained = with_grain(photos, self.grain_of(options))
        for place, outputs in self.run(grained, styles, options[0].tile, observer):
            originals = to_float(photos[place], self.device)
            result[place] = steer(originals, outputs, options[place[0]])
        return result

    def upscale(
        self,
        photo: str | Path | bytes | Image.Image,
        *,
        fidelity: float | None = None,
        histogram_matching: bool = True,
        low_frequencies: bool = True,
        tile: int | None = None,
    ) -> Image.Image:
        """Enlarges one photo by ``network.scale``: a path, an encoded image, or a PIL image.

        The parameters are those of :class:`perceptual.options.UpscaleOptions`.

        Raises:
            InputError: The photo cannot be read (see :mod:`perceptual.errors`), or an option is out of range.
            WeightsError: The network is for another task.
        """
        values = given(
            fidelity=fidelity, histogram_matching=histogram_matching, low_frequencies=low_frequencies, tile=tile
        )
        options = parse(UpscaleOptions, values)
        return self.upscale_pictures([open_picture(photo, self.network.scale)], [options])[0].to_pil()

    @as_out_of_memory
    @torch.inference_mode()
    def upscale_pictures(
        self, pictures: Sequence[Picture], options: Sequence[UpscaleOptions], observer: Observer = UNOBSERVED
    ) -> list[Picture]:
        """Enlarges decoded pictures, each with its own options, in order; alpha bicubically."""
        self.require("super-resolution")
        pictures = [picture.without_hidden_colors() for picture in pictures]
        results = list(pictures)
        conditions = self.conditions(options)
        for indices, batch in self.batches(pictures, options):
            with observer.stage("infer"):
                large = self.upscale_batch(batch, conditions[indices], options[indices[0]].tile, observer)
            for i, original, output in zip(indices, batch, large, strict=True):
                if options[i].histogram_matching:
                    observer.proceed()
                    with observer.stage("match"):
                        output = match_channels(output, original, low_frequencies=options[i].low_frequencies)
                alpha = enlarged(pictures[i].alpha, self.network.scale)
                results[i] = Picture(output.cpu(), alpha, pictures[i].metadata)
        return results

    def upscale_batch(self, photos: Tensor, conditions: Tensor, tile: int | None, observer: Observer) -> Tensor:
        """Enlarges bytes N×3×H×W, by equal conditions."""
        result = self.empty_result(photos)
        for place, outputs in self.run(photos, conditions, tile, observer):
            result[place] = to_bytes(outputs)
        return result

    def require(self, task: str) -> None:
        """Raises WeightsError unless the network is for a task."""
        if self.network.task != task:
            raise WeightsError(f"these weights are for {self.network.task}, not for {task}")

    def conditions(self, options: Sequence[PictureOptions]) -> Tensor:
        """What the network takes besides images, for each of N requests: N×P on the device.

        The parameters of a style; or the fidelity, for a super-resolution network of two sets of weights; or nothing.

        Raises:
            UnknownStyle: The network has no style of that name.
            InvalidOption: It has several styles and none is named, or it has one size of strokes and ``stroke`` is set,
                or one set of weights and ``fidelity`` is set.
        """
        rows = [self.condition(each) for each in options]
        return torch.cat(rows) if rows else torch.zeros(0, 0, device=self.device)

    def condition(self, options: PictureOptions) -> Tensor:
        """As :meth:`conditions` for one request, 1×P."""
        if isinstance(self.network, StyleNetwork):
            return self.style_of(self.network, cast("StyleOptions", options))
        fidelity = cast("UpscaleOptions", options).fidelity
        if self.network.config["blended"]:
            return torch.full((1, 1), FIDELITY if fidelity is None else fidelity, device=self.device)
        if fidelity is not None:
            raise InvalidOption("fidelity: this network has one set of weights")
        return torch.zeros(1, 0, device=self.device)

    def style_of(self, network: StyleNetwork, options: StyleOptions) -> Tensor:
        """The style parameters for one request, 1×P."""
        if options.stroke and network.config["sizes"] == 1:
            raise InvalidOption("stroke: this network has strokes of one size")
        if options.style is None and len(self.styles) > 1:
            raise InvalidOption(f"style is missing; the styles are: {', '.join(self.styles)}")
        shares = dict(options.style or dict.fromkeys(self.styles, 1.0))
        if unknown := [name for name in shares if name not in self.styles]:
            raise unknown_style(unknown[0], self.styles)
        return network.style([shares.get(name, 0.0) for name in self.styles], options.stroke)

    def grain_of(self, options: Sequence[StyleOptions]) -> list[float]:
        """The strength of the grain for each of several requests, by default the network's own."""
        return [self.network.grain if each.grain is None else each.grain for each in options]

    def batches(
        self, pictures: Sequence[Picture], options: Sequence[PictureOptions]
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Groups pictures of one size, tile and fidelity into batches: indices, and pixels on the device."""
        groups = defaultdict(list)
        for index, (picture, each) in enumerate(zip(pictures, options, strict=True)):
            groups[picture.rgb.shape[-2:], each.tile, getattr(each, "fidelity", None)].append(index)
        for (size, tile, _), indices in groups.items():
            count = self.batch_size(size, tile)
            for part in (indices[place : place + count] for place in range(0, len(indices), count)):
                images = [pictures[i].rgb.to(self.device) for i in part]
                yield part, images[0][None] if len(images) == 1 else torch.stack(images)

    def batch_size(self, size: Sequence[int], tile: int | None) -> int:
        """Batch size for images of a size; 1 for large ones, which are then run in parts."""
        return max(1, (tile or self.network.tile) ** 2 // (math.prod(size) * self.network.scale**2))

    def empty_result(self, images: Tensor) -> Tensor:
        """An uninitialized result for images N×3×H×W, of their type and on their device."""
        height, width = images.shape[-2:]
        return images.new_empty(*images.shape[:2], self.network.scale * height, self.network.scale * width)

    def run(self, images: Tensor, conditions: Tensor, tile: int | None, observer: Observer) -> Iterator[Part]:
        """Runs the network on images of one size; in parts if they are large, in smaller parts if memory runs out.

        Args:
            images: N×3×H×W, floats in [0, 1] or bytes, on any device. N is at most :meth:`batch_size`.
            conditions: N×P as from :meth:`conditions`.
            tile: As for :meth:`__call__`.
            observer: Notified of every part.

        Yields:
            Every part; if memory runs out, all parts again, smaller.

        Raises:
            torch.OutOfMemoryError: A GPU's memory does not even hold a small tile.
        """
        side = (tile or self.network.tile) // 4 * 4  # a multiple of 4, for the style network's strides
        while True:
            try:
                for part in self.run_in_parts(images, conditions, side, observer.proceed):
                    observer.tile()
                    yield part
                return
            except torch.OutOfMemoryError:
                if side <= LEAST_TILE:
                    raise
            side = side // 8 * 4  # half, and still a multiple of 4
            torch.cuda.empty_cache()

    def run_in_parts(
        self, images: Tensor, conditions: Tensor, side: int, proceed: Callable[[], None]
    ) -> Iterator[Part]:
        """As :meth:`run`, in parts of ``side`` × ``side`` pixels of the result; ``proceed`` is called before each."""
        network, scale = self.network, self.network.scale
        count, _, height, width = images.shape
        condition = conditions if conditions.shape[1] else None

        def function(part: Tensor) -> Tensor:
            proceed()
            outputs: Tensor = network(part, condition, transform=self.transform)
            return outputs

        if network.reach is not None:
            yield from run_in_tiles(function, images, side // scale, network.reach, scale, self.device)
        elif isinstance(network, StyleNetwork) and count * height * width > side**2:
            # Bands are smaller than tiles, as the features of the whole image are kept too.
            for i in (slice(i, i + 1) for i in range(count)):
                bands = run_in_bands(
                    network,
                    images[i],
                    conditions[i],
                    side**2 // 8,
                    self.device,
                    proceed=proceed,
                    bfloat16=self.bfloat16,
                )
                for (_, channels, rows, columns), outputs in bands:
                    yield Part((i, channels, rows, columns), outputs)
        else:
            yield whole(function, to_float(images, self.device))


def given(**values: Any) -> dict[str, Any]:
    """Arguments that are not None, by option name."""
    return {name.replace("_", "-"): value for name, value in values.items() if value is not None}


def style_names(network: ImageTransformationNetwork, metadata: Mapping[str, Any], name: str) -> list[str]:
    """Names of a network's styles, in their order; ``name`` is that of an only one, if no styles are listed.

    Raises:
        WeightsError: The metadata name more or fewer than the network holds.
    """
    if not isinstance(network, StyleNetwork):
        return []
    names = [str(each["name"]) for each in known_styles(metadata.get("provenance", {}), name)]
    if len(names) != network.config["styles"]:
        raise WeightsError(f"the weights hold {network.config['styles']} styles and name {len(names)}")
    return names


def open_picture(photo: str | Path | bytes | Image.Image, scale: int = 1) -> Picture:
    """Decodes a path, an encoded image, or a PIL image, which will be enlarged ``scale`` times."""
    if isinstance(photo, Image.Image):
        images.refuse_empty(*photo.size)
        images.check_size(*photo.size, images.MAX_PIXELS, scale)
        return images.from_pil(photo)
    if isinstance(photo, bytes | bytearray):
        return images.decode(photo, scale=scale)
    return images.load(photo, scale=scale)


def pick_device(device: str | None) -> torch.device:
    """The named device; by default the first GPU, or the CPU. Raises InvalidOption if torch cannot use it."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.device(device)
    except RuntimeError as error:  # its message has all kinds of devices that torch may be built for
        raise InvalidOption(f"device: cannot use {device!r}: expected cpu, cuda, cuda:1, …") from error
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise InvalidOption(f"device: cannot use {device!r}: {first_line(error)}") from error
