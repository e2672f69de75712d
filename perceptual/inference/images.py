"""Decodes image files to 8-bit sRGB tensors, and encodes them again.

All kinds of pixels (palette, CMYK, 16 bits, colour profiles, EXIF orientation) become one form, a :class:`Picture`, so
that the rest of the package does not depend on the file's format.
"""

from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, PngImagePlugin
from torch import Tensor

from ..errors import ImageTooLarge, InputError, InvalidImage
from ..files import path_of
from .codecs import decoding, png
from .codecs.decoding import Pixels
from .codecs.encoded import load_bands
from .codecs.formats import READABLE
from .codecs.limits import LONGEST, MAX_PIXELS, MAX_SIDES, Limits, check_size, refuse_empty
from .codecs.metadata import EXIF_DATES, Metadata, with_exif

__all__ = [
    "LONGEST",
    "MAX_PIXELS",
    "MAX_SIDES",
    "READABLE",
    "Limits",
    "Picture",
    "check_size",
    "decode",
    "encode",
    "from_pil",
    "from_pixels",
    "load",
    "read",
    "refuse_empty",
    "shrink",
    "to_tensor",
]

SHOWN = [0] + [255] * 255  # table for Image.point: 0 where alpha is 0, else 255


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture, upright and in sRGB.

    Attributes:
        rgb: uint8, 3×H×W.
        alpha: Opacity, uint8, 1×H×W; None if the file had none.
        metadata: The file's metadata; density and dates are written to results.
    """

    rgb: Tensor
    alpha: Tensor | None = None
    metadata: Metadata = field(default_factory=Metadata)

    def opaque(self) -> Tensor:
        """The pixels, uint8 3×H×W, composited on white."""
        if self.alpha is None:
            return self.rgb
        color = Picture(self.rgb).to_pil()
        white = Image.new("RGB", color.size, "white")
        white.paste(color, mask=Image.fromarray(self.alpha[0].numpy()))
        return to_tensor(white)

    def without_hidden_colors(self) -> "Picture":
        """The same picture with the colours of fully transparent pixels filled in from visible ones around them.

        Their stored colours are arbitrary, and would affect norm statistics and histograms.
        """
        if self.alpha is None or self.alpha.min() > 0:
            return self
        return replace(self, rgb=to_tensor(spread_colors(self.to_pil())))

    def to_pil(self) -> Image.Image:
        """The picture as a PIL image, RGB or RGBA."""
        planes = self.rgb if self.alpha is None else torch.cat([self.rgb, self.alpha])
        return Image.fromarray(planes.permute(1, 2, 0).contiguous().numpy())


def read(path: str | Path) -> bytes:
    """The content of an image file.

    Raises:
        InvalidImage: It is missing, a folder, or cannot be read.
        InputError: This is no path.
    """
    try:
        return path_of(path).read_bytes()
    except (OSError, ValueError) as error:
        raise InvalidImage(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def load(path: str | Path, *, scale: int = 1) -> "Picture":
    """Reads and decodes an image file, which will be enlarged ``scale`` times.

    Raises:
        InputError: As :func:`read` and :func:`decode`; the message names the file.
    """
    content = read(path)
    try:
        return decode(content, scale=scale)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error


def decode(
    data: bytes | bytearray,
    max_pixels: int = MAX_PIXELS,
    scale: int = 1,
    format: str | None = None,
    max_size: int | None = None,
) -> Picture:
    """Decodes JPEG, PNG, WebP, BMP, TIFF or GIF (of several frames, the first).

    Args:
        data: The file's content.
        max_pixels: Limit of width × height, checked before pixels are decoded.
        scale: Factor of enlargement; the limit holds for the result too.
        format: Format of the result, whose longest side is then a limit too.
        max_size: Longest side to which the picture will be reduced before enlargement, if it is larger.

    Raises:
        InvalidImage: Not an image, or a truncated or damaged one.
        UnsupportedFormat: An image of another format.
        ImageTooLarge: The picture or its result is over a limit.
    """
    return from_pixels(decoding.decode(data, Limits(max_pixels, scale, format, max_size)))


def from_pixels(pixels: Pixels) -> Picture:
    """Converts decoded arrays to a picture."""
    return Picture(to_tensor(pixels.rgb), None if pixels.alpha is None else to_tensor(pixels.alpha), pixels.metadata)


def from_pil(image: Image.Image) -> Picture:
    """Converts a PIL image of any mode to a picture: upright, sRGB, 8 bits, alpha apart.

    Raises:
        InvalidImage: It is empty, or its file is truncated or damaged.
    """
    bands = png.load(image) if isinstance(image, PngImagePlugin.PngImageFile) else load_bands(image)
    refuse_empty(*image.size)
    metadata = with_exif(Metadata(profile=image.info.get("icc_profile")), image.info.get("exif"))
    return from_pixels(decoding.finish(bands, replace(metadata, orientation=orientation_of(image))))


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of a loaded image, 1 to 8; 1 if its EXIF block is damaged."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises many kinds; a damaged EXIF block is no reason to refuse the picture
        return 1


def encode(picture: Picture, format: str = "jpeg", quality: int = 90) -> bytes:
    """Encodes a picture, with the density and the dates of its file.

    Args:
        picture: The picture.
        format: One of :data:`perceptual.options.FORMATS`. JPEG has no alpha: the picture is composited on white.
        quality: 1 to 100, for jpeg and webp.

    Raises:
        ImageTooLarge: A side is longer than the format can hold.
    """
    image = (Picture(picture.opaque()) if format == "jpeg" else picture).to_pil()
    if max(image.size) > (limit := MAX_SIDES.get(format, max(image.size))):
        size = f"{image.width}×{image.height}"
        raise ImageTooLarge(f"{format} allows at most {limit} pixels a side, not {size}; choose png")
    # Level 1 and method 2 cost a few per cent of size and are several times faster than the defaults.
    effort = {"jpeg": {}, "png": {"compress_level": 1}, "webp": {"method": 2}}[format]
    metadata, in_exif = picture.metadata, format == "webp"  # which has no other place for the density
    kept: dict[str, Any] = {"dpi": metadata.dpi} if metadata.dpi else {}
    if metadata.dates or (metadata.dpi and in_exif):
        kept["exif"] = exif_block(metadata, density=in_exif)
    buffer = BytesIO()
    image.save(buffer, format, quality=quality, **effort, **kept)
    return buffer.getvalue()


def exif_block(metadata: Metadata, *, density: bool) -> Image.Exif:
    """An EXIF block with a picture's dates and, if wanted, its density alone: place and camera are left out."""
    block = Image.Exif()
    if density and metadata.dpi:
        block[ExifTags.Base.XResolution], block[ExifTags.Base.YResolution] = metadata.dpi
        block[ExifTags.Base.ResolutionUnit] = 2  # inches
    for tag, text in metadata.dates:
        (block.get_ifd(ExifTags.IFD.Exif) if tag in EXIF_DATES else block)[tag] = text
    return block


def shrink(picture: Picture, max_size: int | None) -> Picture:
    """Reduces a picture to a longest side of ``max_size`` pixels, antialiased; a smaller one is returned unchanged."""
    if max_size is None or max(picture.rgb.shape[1:]) <= max_size:
        return picture
    image = picture.to_pil()
    image.thumbnail((max_size, max_size), Image.Resampling.LANCZOS)
    return replace(from_pil(image), metadata=picture.metadata)


def spread_colors(image: Image.Image) -> Image.Image:
    """Converts RGBA to RGB; pixels with alpha 0 get the mean colour of visible pixels around them.

    The image is reduced by 2 again and again, so that the surroundings get wider until they have visible pixels.
    """
    rgb, shown = image.convert("RGB"), image.getchannel("A").point(SHOWN)
    if not shown.histogram()[0] or max(image.size) == 1:
        return rgb
    image.putalpha(shown)  # so that faint pixels get full weight: times a small alpha, 8 bits would lose their colour
    wide = spread_colors(image.convert("RGBa").reduce(2).convert("RGBA"))
    return Image.composite(rgb, wide.resize(image.size, Image.Resampling.BILINEAR), shown)


def to_tensor(image: Image.Image | np.ndarray) -> Tensor:
    """An image of mode L or RGB, or its array, as uint8, 1×H×W or 3×H×W."""
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()
