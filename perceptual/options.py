"""Options of a request. Each is also a header, a form field, a command-line option and a Python argument."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .errors import InvalidOption
from .settings import Choice, Integer, Number, OneOf, Switch, option_name, setting, settings_of

FORMATS = ("jpeg", "png", "webp")
TILE = Integer(128, 16384)  # pixels
SCALES = 2, 4, 8  # factors of super-resolution
FIDELITY = 0.5  # of super-resolution, unless a request asks for another
MOST_MIXED = 32  # styles in one picture
IMAGE_FIELDS = ("data", "body")  # of a form, besides its options; TorchServe calls a raw body “body”


@dataclass(frozen=True)
class Mixture:
    """The kind of option that names a style, or several with their shares."""

    def parse(self, value: Any) -> tuple[tuple[str, float], ...]:
        """Names and shares that add up to 1, from text such as ``starry_night:0.6,udnie:0.4`` or from a mapping."""
        if isinstance(value, str):
            value = dict(share_of(part) for part in split(value))
        shares = {str(name): Number(0).parse(share) for name, share in dict(value).items()}
        total = math.fsum(shares.values())
        if not total or not math.isfinite(total) or len(shares) > MOST_MIXED:
            raise ValueError
        return tuple((name, share / total) for name, share in shares.items())  # also 0: its name is checked later

    def __str__(self) -> str:
        example = "starry_night:0.6,udnie:0.4"
        return f"a style's name, or up to {MOST_MIXED} with shares above 0, each named once, such as {example}"


def split(text: str) -> list[str]:
    """The parts of a mixture's text. Raises ValueError if one is empty, or two have the same name."""
    parts = [part.strip() for part in text.split(",")]
    names = [share_of(part)[0] for part in parts]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError
    return parts


def share_of(part: str) -> tuple[str, str]:
    """Name and share of a part of a mixture's text; the share is 1 if none is given."""
    name, colon, share = part.rpartition(":")
    return (name.strip(), share) if colon else (part, "1")


@dataclass(frozen=True)
class PictureOptions:
    """Options of every result; :func:`perceptual.settings.parse` builds them from text."""

    format: str | None = setting(
        None,
        Choice(FORMATS),
        "format of the result; default: from its name, or at a server from the Accept header, else jpeg",
    )
    quality: int = setting(90, Integer(1, 100), "quality of jpeg and webp")
    tile: int | None = setting(
        None,
        TILE,
        "side, in pixels of the result, of the square that is computed in one pass: larger ones take more memory; "
        "default: 2048 for style, 1024 for super-resolution, about 1.5 GiB",
    )


@dataclass(frozen=True)
class StyleOptions(PictureOptions):
    """Options of a stylization."""

    style: tuple[tuple[str, float], ...] | None = setting(
        None, Mixture(), "which style, or a mixture of styles such as starry_night:0.6,udnie:0.4"
    )
    stroke: float = setting(0.0, Number(0, 1), "size of the strokes, from 0, fine, to 1, coarse")
    grain: float | None = setting(
        None,
        Number(0, 1),
        "strength of smooth noise that the photo gets first, from which a network that was trained with it "
        "makes strokes in flat areas; default: the network's",
    )
    strength: float = setting(1.0, Number(0, 1), "share of the style; the rest is the photo itself")
    keep_colors: bool = setting(False, Switch(), "take only brightness from the style and keep the photo's colours")
    max_size: int | None = setting(
        None, Integer(16, 16384), "reduce the photo to this longest side, in pixels, first, which makes strokes coarser"
    )


@dataclass(frozen=True)
class UpscaleOptions(PictureOptions):
    """Options of super-resolution."""

    fidelity: float | None = setting(
        None,
        Number(0, 1),
        f"from 0, crisp: with detail as it may have been, to 1, faithful: nothing is made up; default: {FIDELITY}",
    )
    histogram_matching: bool = setting(True, Switch(), "give the result the photo's own distribution of colours")
    low_frequencies: bool = setting(
        True, Switch(), "match the histogram of low frequencies alone, which leaves fine detail as it is"
    )


@dataclass(frozen=True)
class CollectionOptions(StyleOptions, UpscaleOptions):
    """Options of an archive of several networks; without a style, it only enlarges."""

    scale: int | None = setting(
        None, OneOf(SCALES), "factor by which super-resolution enlarges the result; default: not enlarged"
    )


def check_alone(values: Iterable[str], cls: type) -> None:
    """Raises InvalidOption for an option that a collection may have, but not a model of one network."""
    own, every = ([option_name(each) for each in settings_of(kind)] for kind in (cls, CollectionOptions))
    if others := [name for name in values if name in every and name not in own]:
        raise InvalidOption(
            f"unknown option {others[0]}; the options are {', '.join(own)}; "
            "a collection of several networks may have it: perceptual package --collection"
        )


def check_task(values: Iterable[str], cls: type, model: str) -> None:
    """Raises InvalidOption for an option that the task of a network does not have."""
    known = {option_name(each) for each in settings_of(cls)}
    if strange := [name for name in values if name not in known]:
        task = "super-resolution" if cls is UpscaleOptions else "style"
        raise InvalidOption(f"{strange[0]}: not an option of {task}, which {model} is for")
