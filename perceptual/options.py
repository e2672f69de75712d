"""What a request may ask for, with the same names as header, form field and command-line option."""

from dataclasses import dataclass

from .settings import Choice, Integer, Number, OneOf, Switch, Text, setting

FORMATS = ("jpeg", "png", "webp")
TILE = Integer(128, 16384)  # pixels


@dataclass(frozen=True)
class PictureOptions:
    """Options of every result; :func:`perceptual.settings.parse` builds them from text."""

    format: str | None = setting(
        None, Choice(FORMATS), "format of the result; default: what Accept or the result's name asks for, else jpeg"
    )
    quality: int = setting(90, Integer(1, 100), "quality of jpeg and webp")
    tile: int | None = setting(
        None,
        TILE,
        "side, in pixels of the result, of the square that is worked on at once: larger ones take more memory; "
        "default: 2048 for style, 1024 for super-resolution, about 1.5 GiB",
    )


@dataclass(frozen=True)
class StyleOptions(PictureOptions):
    """Options of a stylization."""

    strength: float = setting(1.0, Number(0, 1), "share of the style; the rest is the photo itself")
    keep_colors: bool = setting(False, Switch(), "take only brightness from the style and keep the photo's colours")
    max_size: int | None = setting(None, Integer(16, 16384), "reduce the photo to this longest side, in pixels, first")


@dataclass(frozen=True)
class UpscaleOptions(PictureOptions):
    """Options of super-resolution."""

    histogram_matching: bool = setting(True, Switch(), "give the result the photo's own distribution of colours")
    low_frequencies: bool = setting(False, Switch(), "match the histogram of low frequencies alone, not of fine detail")


@dataclass(frozen=True)
class CollectionOptions(StyleOptions, UpscaleOptions):
    """Options of an archive of several networks: which style, and how many times larger afterwards."""

    style: str | None = setting(None, Text("a style's name"), "which style of a collection; without, only scale")
    scale: int | None = setting(
        None, OneOf((4, 8)), "how many times larger a collection makes the result; default: not"
    )
