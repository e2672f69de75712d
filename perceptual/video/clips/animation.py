"""Animated GIF, PNG and WebP as clips."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from PIL import Image

from ...errors import InvalidVideo, first_line
from ...inference import images
from .clip import Clip, Frame

FORMATS = ("GIF", "PNG", "WEBP")
LEAST_SECONDS = Fraction(1, 100)  # browsers show a frame of a shorter duration for USUAL_SECONDS
USUAL_SECONDS = Fraction(1, 10)


class Animation(Clip):
    """An image of several frames, each with its own duration. Frames that store only changes are composited.

    Raises InvalidVideo if the file is not a GIF, PNG or WebP.
    """

    time_base = Fraction(1, 60_000)  # a centisecond and 1/60 s are both multiples of it
    transparent = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self.image = Image.open(path, formats=FORMATS)
        except Exception as error:  # Pillow raises many kinds
            raise InvalidVideo(f"{path}: this is not a GIF, PNG or WebP, or it is damaged") from error
        images.check_size(*self.image.size, images.MAX_PIXELS, 1)
        frames = int(getattr(self.image, "n_frames", 1)) or 1
        # A PNG may begin with a picture for programs that do not show animations.
        self.frames = range(1 if getattr(self.image, "default_image", False) else 0, frames)
        self.count = len(self.frames)
        self.last_duration = self.read_last_duration()
        self.rate = 1 / (self.last_duration or USUAL_SECONDS)
        loop = self.image.info.get("loop")
        # A GIF's loop counts repetitions: it is played once more than that, or once if loop is missing.
        gif = self.image.format == "GIF"
        self.plays = (1 if gif else 0) if loop is None else loop + 1 if gif and loop else loop

    def read_last_duration(self) -> Fraction:
        """Duration of the last frame, in seconds; 0 if the file is damaged before it."""
        try:
            self.image.seek(self.frames[-1])
            self.image.load()  # sets the duration in a WebP
            return seconds(self.image)
        except Exception:  # Pillow raises many kinds; reported when the frames are read
            return Fraction(0)

    def __iter__(self) -> Iterator[Frame]:
        """See the base class."""
        pts = 0
        for done, index in enumerate(self.frames):
            try:
                self.image.seek(index)
                shown = self.image.convert("RGBA")
            except Exception as error:  # Pillow raises many kinds
                self.faults.append(f"{self.path}: damaged after {done} of {self.count} frames: {first_line(error)}")
                return
            duration = round(seconds(self.image) / self.time_base)
            yield Frame(images.from_pil(shown), pts, duration)
            pts += duration

    def close(self) -> None:
        """See the base class."""
        self.image.close()


def seconds(image: Image.Image) -> Fraction:
    """Duration of the current frame, in seconds, as browsers interpret it."""
    stored = Fraction(image.info.get("duration") or 0).limit_denominator(1000) / 1000
    return stored if stored > LEAST_SECONDS else USUAL_SECONDS
