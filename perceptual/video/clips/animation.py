"""Animated GIF, PNG and WebP as clips."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from PIL import Image

from ...errors import InvalidVideo, first_line
from ...inference import images
from .clip import Clip, Frame

FORMATS = ("GIF", "PNG", "WEBP")
LEAST_SECONDS = Fraction(1, 100)  # browsers show what is shorter for a tenth of a second
USUAL_SECONDS = Fraction(1, 10)


class Animation(Clip):
    """An image of several frames, each with its own duration; what it shows, not what it stores.

    Raises InvalidVideo if it is not one.
    """

    time_base = Fraction(1, 60_000)  # of both, centiseconds and 60 frames a second, a whole number
    transparent = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self.image = Image.open(path, formats=FORMATS)
        except Exception as error:  # whatever Pillow raises
            raise InvalidVideo(f"{path}: this is not a GIF, PNG or WebP, or it is damaged") from error
        images.check_size(*self.image.size, images.MAX_PIXELS, 1)
        self.count = int(getattr(self.image, "n_frames", 1))
        self.last = self.last_duration()
        self.rate = 1 / (self.last or USUAL_SECONDS)
        loop = self.image.info.get("loop")
        # A GIF without the number is shown once; with it, once more than it says.
        gif = self.image.format == "GIF"
        self.plays = (1 if gif else 0) if loop is None else loop + 1 if gif and loop else loop

    def last_duration(self) -> Fraction:
        """For how long the last frame is shown, in seconds; 0 if the file is damaged before it."""
        try:
            self.image.seek((self.count or 1) - 1)
            self.image.load()  # WebP knows only then
            return seconds(self.image)
        except Exception:  # whatever Pillow raises; reported when the frames are read
            return Fraction(0)

    def __iter__(self) -> Iterator[Frame]:
        """See the base class."""
        pts = 0
        for index in range(self.count or 1):
            try:
                self.image.seek(index)
                shown = self.image.convert("RGBA")
            except Exception as error:  # whatever Pillow raises
                self.faults.append(f"{self.path}: damaged after {index} of {self.count} frames: {first_line(error)}")
                return
            duration = round(seconds(self.image) / self.time_base)
            yield Frame(images.from_pil(shown), pts, duration)
            pts += duration

    def close(self) -> None:
        """See the base class."""
        self.image.close()


def seconds(image: Image.Image) -> Fraction:
    """For how long a frame is shown."""
    given = Fraction(image.info.get("duration") or 0).limit_denominator(1000) / 1000
    return given if given > LEAST_SECONDS else USUAL_SECONDS
