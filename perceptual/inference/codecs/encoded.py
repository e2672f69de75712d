"""An image whose structure is read but whose pixels are not decoded yet: the result of every container's reader."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image

from ...errors import ImageTooLarge, InvalidImage, PerceptualError
from .colour import Bands, split_alpha
from .metadata import Metadata


@dataclass(frozen=True)
class Encoded:
    """An image whose pixels are still to be decoded.

    Attributes:
        size: Width and height as stored, before it is turned upright.
        load: Decodes the pixels. Raises InvalidImage if they are truncated or damaged.
        metadata: The file's metadata.
    """

    size: tuple[int, int]
    load: Callable[[], Bands]
    metadata: Metadata = field(default_factory=Metadata)


@contextmanager
def pillow_errors(what: str) -> Iterator[None]:
    """Turns all errors that libraries raise for bad data into errors of this package."""
    try:
        yield
    except (PerceptualError, MemoryError):
        raise
    except Image.DecompressionBombError as error:  # some plugins check Pillow's own limit while they read a header
        raise ImageTooLarge(f"{what} asks for too many pixels: {error}") from error
    except Exception as error:  # nearly everything: OSError, SyntaxError, ValueError, struct.error, zlib.error, …
        raise InvalidImage(f"{what} is truncated or damaged{f': {error}' if str(error) else ''}") from error


def load_bands(image: Image.Image) -> Bands:
    """Decodes an image opened by Pillow. Raises InvalidImage."""
    with pillow_errors("the image"):
        image.load()
        return split_alpha(image)


def truncated(name: str) -> InvalidImage:
    """The error for a truncated file."""
    return InvalidImage(f"the {name} file is truncated or damaged")


def too_many(name: str, parts: str, limit: int) -> ImageTooLarge:
    """The error for a file with more parts than any picture needs."""
    return ImageTooLarge(f"the {name} file has more than {limit:,} {parts}; save it anew with an image editor")
