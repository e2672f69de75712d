"""Converts pixels of any kind to 8-bit sRGB, and separates alpha."""

from io import BytesIO

import numpy as np
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from .metadata import Metadata

Bands = tuple[Image.Image, Image.Image | None]  # colour (L, RGB, CMYK or LAB), and opacity (L) if there is any

ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turns an image upright by its EXIF orientation; an unknown orientation is ignored."""
    return image.transpose(ORIENTATIONS[orientation]) if orientation in ORIENTATIONS else image


def split_alpha(image: Image.Image) -> Bands:
    """Splits an image of any mode into colour (L, RGB, CMYK or LAB) and, if it has any, alpha (L)."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return split_deep_alpha(image)
    if image.has_transparency_data:
        *color, alpha = image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA").split()
        return (color[0] if len(color) == 1 else Image.merge("RGB", color)), alpha
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def split_deep_alpha(image: Image.Image) -> Bands:
    """:func:`split_alpha` for greys of more than 8 bits, which Pillow's own conversion clips.

    In modes I and F the file does not state the value of white: it is assumed to be the smallest usual value that no
    pixel exceeds.
    """
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    (bits, *_) = tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))
    (sign, *_) = tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))
    values = np.asarray(image)
    if image.mode == "I" and tags and sign == 1:
        values = values.view(np.uint32)  # Pillow treats them as signed
    values = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)
    brightest = values.max()
    if image.mode.startswith("I;16"):
        white = 2.0**bits - 1
    elif image.mode == "I" and tags and (bits, sign) == (16, 2):
        white = 2.0**15 - 1
    else:
        white = usual_white(brightest, floating=image.mode == "F")
    grey = Image.fromarray((values.clip(0, white) * (255 / white)).round().astype(np.uint8))
    if image.mode.startswith("I;16") and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        grey = ImageOps.invert(grey)  # Pillow inverts inverted greys only for 8 bits
    transparent = image.info.get("transparency")
    if transparent is None:
        return grey, None
    return grey, Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))


def usual_white(brightest: float, *, floating: bool) -> float:
    """The smallest usual value for white that no pixel exceeds."""
    usual = (1.0, 255.0, 65535.0) if floating else (255.0, 65535.0, 2.0**31, 2.0**32)
    return next((white for white in usual if brightest <= white), brightest)


def to_srgb(color: Image.Image, metadata: Metadata) -> Image.Image:
    """Converts L, RGB, CMYK or LAB to RGB, from the colour space of an ICC profile if there is one, or by a gamma."""
    profile = metadata.profile
    if profile and isinstance(profile, bytes):  # a TIFF may give it any type
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            mode = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK", "Lab ": "LAB"}[source.profile.xcolor_space]
            if color.mode == "L" and mode == "RGB":  # grey was stored, but its values are those of the RGB space
                color = color.convert("RGB")
            if color.mode != mode:  # Pillow before 13 would read past the end of the pixels
                raise ValueError
            transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
            return transform.apply(color)
        except (ImageCms.PyCMSError, OSError, KeyError, ValueError):
            pass  # a damaged or mismatched profile is no reason to refuse the picture
    rgb = color.convert("RGB")
    return rgb if metadata.gamma is None else rgb.point(to_srgb_curve(metadata.gamma) * 3)


def to_srgb_curve(gamma: float) -> list[int]:
    """A table from 256 values that are light to the power of ``gamma`` to sRGB values."""
    light = (np.arange(256) / 255) ** (1 / gamma)
    values = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    return [int(value) for value in (255 * values).round()]
