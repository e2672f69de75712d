"""AVIF and HEIC, the formats of phones: decoded by Pillow, and by pillow-heif if that is installed."""

from importlib.util import find_spec
from io import BytesIO

from PIL import Image, features

from ...errors import UnsupportedFormat
from .boxes import check_boxes
from .encoded import Encoded, load_bands, pillow_errors
from .metadata import Metadata, with_exif


def read_avif(data: bytes | bytearray) -> Encoded:
    """An AVIF image. Raises InvalidImage, UnsupportedFormat, ImageTooLarge."""
    if not features.check("avif"):
        raise UnsupportedFormat("AVIF is not supported here: pip install 'pillow>=11.3', or send JPEG")
    from PIL import AvifImagePlugin

    check_boxes("AVIF", data)
    with pillow_errors("the AVIF header"):
        return encoded(AvifImagePlugin.AvifImageFile(BytesIO(data), ""))


def read_heic(data: bytes | bytearray) -> Encoded:
    """A HEIC image. Raises InvalidImage, UnsupportedFormat, ImageTooLarge."""
    if not find_spec("pillow_heif"):
        raise UnsupportedFormat("HEIC is not supported here: pip install pillow-heif, or send JPEG")
    import pillow_heif

    check_boxes("HEIC", data)
    with pillow_errors("the HEIC header"):
        return encoded(pillow_heif.HeifImageFile(BytesIO(data), ""))


def encoded(image: Image.Image) -> Encoded:
    """An image whose header is read; its orientation is the one that the library derives from container and EXIF."""
    profile, exif = image.info.get("icc_profile"), image.info.get("exif")
    return Encoded(image.size, lambda: load_bands(image), with_exif(Metadata(profile=profile), exif))
