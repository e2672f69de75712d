"""The handler of collections: many styles, and super-resolution, from one pool of workers."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from perceptual.errors import InvalidOption, unknown_style
from perceptual.inference.conversion import upscaler_of
from perceptual.inference.images import Picture
from perceptual.inference.large import is_sized, stylize_each
from perceptual.inference.metadata import LARGE_FACTOR
from perceptual.inference.networks import SuperResolutionNetwork
from perceptual.inference.predictor import Predictor, load
from perceptual.options import CollectionOptions, PictureOptions, StyleOptions, UpscaleOptions
from perceptual.settings import option_name
from perceptual.worker.handler import ImageHandler
from perceptual.worker.measure import Watch

T = TypeVar("T")


class CollectionHandler(ImageHandler):
    """Stylizes each picture in its requested style, then enlarges it by its requested factor.

    Large photos are stylized at a smaller size, at which strokes are visible.

    Attributes:
        styles: The network of each style, by the style's name. An only one has that of its network's file, unless the
            metadata list styles.
        upscalers: The network of each factor.
        upscaler: Returns the network that enlarges photos stylized at a smaller size.
    """

    options = CollectionOptions
    styles: dict[str, Predictor]
    upscalers: dict[int, Predictor]
    upscaler: Callable[[], Predictor]

    def load(self, folder: Path, device: str, engine: str) -> None:
        """Loads all networks; at most one for each factor (:func:`perceptual.archives.build.package_collection`)."""
        self.networks = {file.stem: load(file, device, engine) for file in sorted(folder.glob("*.safetensors"))}
        self.styles, self.upscalers = {}, {}
        for each in self.networks.values():
            if each.network.task != "style":
                self.upscalers[each.network.scale] = each
                continue
            self.styles |= dict.fromkeys(each.styles, each)
        own = self.upscalers.get(LARGE_FACTOR)
        self.upscaler = (lambda: own) if own else upscaler_of(folder, device, engine)

    def warm_up_options(self) -> Iterable[CollectionOptions]:
        """A style of every network and every factor, each alone."""
        yield from (CollectionOptions(style=((each.styles[0], 1.0),)) for each in dict.fromkeys(self.styles.values()))
        yield from (CollectionOptions(scale=factor) for factor in self.upscalers)

    def scale_of(self, options: CollectionOptions) -> int:
        """The requested factor, or 1.

        Raises:
            UnknownStyle: The collection has no style of that name.
            InvalidOption: Neither a style nor a factor is given, no network has that factor, the styles of a mixture
                are of several networks, or an option applies to a step that was not requested.
        """
        styles = ", ".join(self.styles) or "none"
        factors = " or ".join(map(str, self.upscalers))
        if options.style is None and options.scale is None:
            raise InvalidOption(f"say which style: {styles}{f'; or scale: {factors}' if factors else ''}")
        if options.style is None:
            refuse_unused(options, StyleOptions, "a style")
        else:
            self.network_of(options.style).conditions([options])
        if options.scale is None:
            refuse_unused(options, UpscaleOptions, "scale")
        if options.scale is not None and options.scale not in self.upscalers:
            there_is = f"{factors} times" if factors else "nothing"
            raise InvalidOption(f"scale: this collection enlarges {there_is}, not {options.scale} times")
        if options.scale:
            self.upscalers[options.scale].conditions([options])
        return options.scale or 1

    def network_of(self, mixture: Sequence[tuple[str, float]]) -> Predictor:
        """The network that has all styles of a mixture. Raises UnknownStyle, or InvalidOption if no network has all."""
        names = [name for name, _ in mixture]
        if unknown := [name for name in names if name not in self.styles]:
            raise unknown_style(unknown[0], self.styles)
        if len({self.styles[name] for name in names}) > 1:
            raise InvalidOption(
                f"style: {', '.join(names)} are of several networks; only styles of one network can be mixed"
            )
        return self.styles[names[0]]

    def networks_of(self, options: CollectionOptions) -> list[Predictor]:
        """The network of the style, then that of the factor."""
        upscalers = [self.upscalers[options.scale]] if options.scale else []
        return ([self.network_of(options.style)] if options.style else []) + upscalers

    def sized(self, options: CollectionOptions) -> bool:
        """True without a style, or if a size is requested; the strokes of other large photos would be too fine."""
        return options.style is None or is_sized(options, enlarged=options.scale is not None)

    def run(self, pictures: Sequence[Picture], options: Sequence[CollectionOptions], watch: Watch) -> list[Picture]:
        """Runs each network on a batch of all pictures that need it; styles first."""
        results = list(pictures)
        # Requests may ask for tiles as large as style networks can run; super-resolution needs smaller ones.
        enlarging = [with_tile_of(each, SuperResolutionNetwork.tile) for each in options]

        def run_each(
            run: Callable[..., list[Picture]], indices: list[int], options: Sequence[CollectionOptions]
        ) -> None:
            outputs = run([results[i] for i in indices], [options[i] for i in indices], watch)
            for i, output in zip(indices, outputs, strict=True):
                results[i] = output

        networks = [self.network_of(each.style) if each.style else None for each in options]
        for network, indices in grouped(networks).items():
            run_each(partial(stylize_each, network, self.upscaler, self.runs_at_own_size), indices, options)
        for factor, indices in grouped([each.scale for each in options]).items():
            run_each(self.upscalers[factor].upscale_pictures, indices, enlarging)
        return results


def refuse_unused(options: CollectionOptions, part: type[PictureOptions], needs: str) -> None:
    """Raises InvalidOption for options of a step that a request does not include."""
    common = {each.name for each in fields(PictureOptions)}
    for each in fields(part):
        if each.name not in common and getattr(options, each.name) != each.default:
            raise InvalidOption(f"{option_name(each)}: has no effect without {needs}")


def with_tile_of(options: CollectionOptions, largest: int) -> CollectionOptions:
    """Options with ``tile`` limited to a maximum."""
    return replace(options, tile=min(options.tile, largest)) if options.tile else options


def grouped(keys: Sequence[T | None]) -> dict[T, list[int]]:
    """Indices by key; indices with the key None are left out."""
    groups: dict[T, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        if key is not None:
            groups[key].append(index)
    return groups
