"""Limits on the size of pictures."""

import math
from dataclasses import dataclass

from ...errors import ImageTooLarge, InvalidImage

MAX_PIXELS = 8192**2
LONGEST = 65535  # pixels a side; networks pad to 16 rows, many times the pixels of a thin picture
MAX_SIDES = {"jpeg": 65500, "webp": 16383}  # libjpeg's and libwebp's own limits, in pixels


@dataclass(frozen=True)
class Limits:
    """The limits for one picture.

    Attributes:
        pixels: Maximum of width × height, for the picture and for its result.
        scale: Factor of enlargement.
        format: Format of the result, whose longest side is then a limit too.
        max_size: Longest side to which the picture will be reduced before enlargement, if it is larger.
        worked: Maximum of width × height after that reduction, derived from a time limit; None for no limit.
    """

    pixels: int = MAX_PIXELS
    scale: int = 1
    format: str | None = None
    max_size: int | None = None
    worked: int | None = None

    def check(self, width: int, height: int) -> None:
        """Raises InvalidImage for a picture without pixels, ImageTooLarge for one over a limit."""
        refuse_empty(width, height)
        wide, high = reduced_size(width, height, self.max_size)
        check_size(wide, high, self.pixels, self.scale, self.format, reduced=wide < width or high < height)
        check_size(width, height, self.pixels)
        if max(width, height) > LONGEST:
            raise ImageTooLarge(f"the image has {width}×{height} pixels; the limit is {LONGEST} a side")
        if self.worked is not None and wide * high > self.worked:
            room = math.sqrt(self.worked / (wide * high))
            fitting = "×".join(str(max(1, math.floor(side * room))) for side in (wide, high))
            raise ImageTooLarge(
                f"{wide}×{high} pixels take this server too long; the limit is {self.worked} pixels in all: "
                f"send {fitting} at most"
            )


def reduced_size(width: int, height: int, max_size: int | None) -> tuple[int, int]:
    """Width and height of a picture reduced to a longest side, if it is larger."""
    share = min(1.0, (max_size or math.inf) / max(width, height))
    return max(1, round(width * share)), max(1, round(height * share))


def refuse_empty(width: int, height: int) -> None:
    """Raises InvalidImage if a side is 0."""
    if width < 1 or height < 1:
        raise InvalidImage("the image has no pixels")


def check_size(
    width: int, height: int, max_pixels: int, scale: int = 1, format: str | None = None, *, reduced: bool = False
) -> None:
    """Raises ImageTooLarge, naming the largest image that fits, if ``scale`` times the size is over a limit."""
    by_pixels = math.sqrt(max_pixels / (width * height)) / scale
    by_side = MAX_SIDES.get(format or "", math.inf) / max(width, height) / scale
    if (room := min(by_pixels, by_side)) >= 1:
        return
    short, long = (max(1, math.floor(side * room)) for side in sorted((width, height)))
    long = max(1, min(long, max_pixels // (scale**2 * short)))
    limit = f"{max_pixels} pixels in all" if by_pixels < by_side else f"{MAX_SIDES[format or '']} a side in {format}"
    enlarged = f", {scale} times larger {scale * width}×{scale * height}" if scale > 1 else ""
    fitting = (long, short) if width > height else (short, long)
    has = "the image has, reduced," if reduced else "the image has"
    raise ImageTooLarge(
        f"{has} {width}×{height} pixels{enlarged}; the limit is {limit}: send {'×'.join(map(str, fitting))} at most"
    )
