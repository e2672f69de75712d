"""Pictures in and out: encoded bytes to 8-bit sRGB tensors and back.

Whatever a file holds (palette, CMYK, 16 bits, a colour profile, a camera held upright) becomes one form, a
:class:`Picture`, so that nothing behind this module has to ask what a photo was.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

# Importing a plugin registers it in Image.OPEN; these six are the formats read.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    ExifTags,
    GifImagePlugin,  # noqa: F401
    Image,
    ImageCms,
    ImageOps,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,  # noqa: F401
)
from torch import Tensor

from ..errors import ImageTooLarge, InputError, InvalidImage, UnsupportedFormat

READABLE = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 8192**2
LONGEST = 65535  # pixels a side; networks pad to 16 rows, and of so thin a picture that would be far more than it has
MAX_SIDES = {"jpeg": 65500, "webp": 16383}  # libjpeg's and libwebp's own limits, in pixels

# Magic bytes of formats that are refused: Pillow reads some, but its parsers for them stay out of a server's reach.
UNREADABLE = {
    "AVIF": rb".{4}ftypavi[fs]",
    "HEIC": rb".{4}ftyp(hei[cfmsx]|hev[cmsx]|mif1|msf1)",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "JPEG 2000": rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ",
    "DDS": rb"DDS ",
    "EPS": rb"%!PS|\xc5\xd0\xd3\xc6",
    "ICNS": rb"icns",
    "ICO": rb"\0\0\x01\0",
    "OpenEXR": rb"v/1\x01",
    "PCX": rb"\x0a[\0\x02-\x05]\x01[\x01\x02\x04\x08]",
    "PDF": rb"%PDF-",
    "Photoshop": rb"8BPS",
    "PNM": rb"P[1-7]\s",
    "QOI": rb"qoif",
    "SGI": rb"\x01\xda[\0\x01][\x01\x02]",
    "SVG": rb"(\xef\xbb\xbf)?\s*(<\?xml.*|<!.*)?<svg[\s>]",
}

SHOWN = [0] + [255] * 255  # what of alpha is not all transparent, for Image.point

ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture, upright and in sRGB.

    Attributes:
        rgb: uint8, 3×H×W.
        alpha: Opacity, uint8, 1×H×W; None where the file had none.
    """

    rgb: Tensor
    alpha: Tensor | None = None

    def opaque(self) -> Tensor:
        """The pixels, uint8 3×H×W, laid on white where they are transparent."""
        if self.alpha is None:
            return self.rgb
        color = Picture(self.rgb).to_pil()
        white = Image.new("RGB", color.size, "white")
        white.paste(color, mask=Image.fromarray(self.alpha[0].numpy()))
        return to_tensor(white)

    def without_hidden_colors(self) -> "Picture":
        """The same to look at: where nothing is to be seen, with colours of what is seen around it.

        What a file holds there is arbitrary, and would decide what networks and histograms make of the rest.
        """
        if self.alpha is None or self.alpha.min() > 0:
            return self
        return Picture(to_tensor(spread_colors(self.to_pil())), self.alpha)

    def to_pil(self) -> Image.Image:
        """The same as a PIL image, RGB or RGBA."""
        planes = self.rgb if self.alpha is None else torch.cat([self.rgb, self.alpha])
        return Image.fromarray(planes.permute(1, 2, 0).contiguous().numpy())


def read(path: str | Path) -> bytes:
    """The content of an image file.

    Raises:
        InvalidImage: It is missing, a folder, or not allowed to be read.
    """
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise InvalidImage(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def load(path: str | Path, *, scale: int = 1) -> "Picture":
    """Reads and decodes an image file, that will be enlarged so many times. Raises as :func:`read` and :func:`decode`.

    The error names the file.
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
        scale: How many times larger the result of super-resolution will be; the limit is then the result's too.
        format: The format that the result will have, whose longest side is then a limit too.
        max_size: The longest side to which the picture will be reduced before that, if it is larger.

    Raises:
        InvalidImage: Not an image, or a truncated or damaged one.
        UnsupportedFormat: An image of another format.
        ImageTooLarge: It, or what becomes of it, is over a limit.
    """
    image = open_image(data)
    refuse_empty(image)
    reduced = min(1.0, (max_size or math.inf) / max(image.size))
    width, height = (max(1, round(side * reduced)) for side in image.size)
    check_size(width, height, max_pixels, scale, format, reduced=reduced < 1)
    check_size(*image.size, max_pixels)
    check_tiles(image, max_pixels)
    if max(image.size) > LONGEST:
        raise ImageTooLarge(f"the image has {image.width}×{image.height} pixels; the limit is {LONGEST} a side")
    return from_pil(image)


def refuse_empty(image: Image.Image) -> None:
    """Raises InvalidImage if a side is 0."""
    if 0 in image.size:
        raise InvalidImage("the image has no pixels")


def check_tiles(image: Image.Image, max_pixels: int) -> None:
    """Raises ImageTooLarge if a TIFF has larger tiles than an image may be: each is decoded as a whole."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        width, height = (image.tag_v2.get(tag) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH))
        if isinstance(width, int) and isinstance(height, int) and width * height > max_pixels:
            raise ImageTooLarge(f"the image has tiles of {width}×{height} pixels; the limit is {max_pixels} in all")


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


def from_pil(image: Image.Image) -> Picture:
    """Brings a PIL image of any mode into the one form: upright, sRGB, 8 bits, alpha apart.

    Raises:
        InvalidImage: It is empty, or its file turns out to be truncated or damaged.
    """
    scale_key(image)
    with pillow_errors("the image"):
        image.load()
    refuse_empty(image)
    with pillow_errors("the image"):
        color, alpha = split_alpha(image)
        rgb = upright(to_srgb(color, image.info.get("icc_profile")), image)
        return Picture(to_tensor(rgb), None if alpha is None else to_tensor(upright(alpha, image)))


def encode(picture: Picture, format: str = "jpeg", quality: int = 90) -> bytes:
    """Encodes a picture.

    Args:
        picture: What to encode.
        format: One of :data:`perceptual.options.FORMATS`. JPEG has no alpha: the picture is laid on white.
        quality: 1 to 100, for jpeg and webp.

    Raises:
        ImageTooLarge: A side is longer than the format can hold.
    """
    image = (Picture(picture.opaque()) if format == "jpeg" else picture).to_pil()
    if max(image.size) > (limit := MAX_SIDES.get(format, max(image.size))):
        size = f"{image.width}×{image.height}"
        raise ImageTooLarge(f"{format} holds at most {limit} pixels a side, not {size}; ask for png")
    # Level 1 and method 2 cost a few per cent of size and are several times faster than the defaults.
    effort = {"jpeg": {}, "png": {"compress_level": 1}, "webp": {"method": 2}}[format]
    buffer = BytesIO()
    image.save(buffer, format, quality=quality, **effort)
    return buffer.getvalue()


def shrink(picture: Picture, max_size: int | None) -> Picture:
    """Reduces a picture to a longest side of ``max_size`` pixels, antialiased; a smaller one is returned as it is."""
    if max_size is None or max(picture.rgb.shape[1:]) <= max_size:
        return picture
    image = picture.to_pil()
    image.thumbnail((max_size, max_size), Image.Resampling.LANCZOS)
    return from_pil(image)


def open_image(data: bytes | bytearray) -> Image.Image:
    """Reads an image's header. Raises as :func:`decode`, but for the limit.

    Image.open would warn of or refuse large images by a limit of its own, global to the process.
    """
    prefix = bytes(data[:16])
    for name in READABLE:
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(prefix) is True:
            break
    else:
        raise unreadable(data)
    with pillow_errors(f"the {name} header"):
        return factory(BytesIO(data), "")


@contextmanager
def pillow_errors(what: str) -> Iterator[None]:
    """Turns whatever Pillow raises over bad data into one of our errors."""
    try:
        yield
    except Image.DecompressionBombError as error:  # some plugins ask Pillow's own limit while they read a header
        raise ImageTooLarge(f"{what} asks for too many pixels: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # nearly everything: OSError, SyntaxError, ValueError, struct.error, zlib.error, …
        raise InvalidImage(f"{what} is truncated or damaged{f': {error}' if str(error) else ''}") from error


def unreadable(data: bytes | bytearray) -> InvalidImage | UnsupportedFormat:
    """The error that says why the data cannot be read."""
    readable = f"send {', '.join(READABLE[:-1])} or {READABLE[-1]}"
    if not data:
        return InvalidImage(f"the image is empty; {readable}")
    beginning = bytes(data[:1024])
    for name, pattern in UNREADABLE.items():
        if re.match(pattern, beginning, re.DOTALL):
            return UnsupportedFormat(f"{name} is not supported; {readable}")
    if data.endswith(b"TRUEVISION-XFILE.\0"):  # the one format that is told by its end
        return UnsupportedFormat(f"TGA is not supported; {readable}")
    return InvalidImage(f"this is not an image; {readable}")


def spread_colors(image: Image.Image) -> Image.Image:
    """RGBA, whose alpha is lost, as RGB: with the mean colours of ever wider surroundings where alpha is 0."""
    rgb, shown = image.convert("RGB"), image.getchannel("A").point(SHOWN)
    if not shown.histogram()[0] or max(image.size) == 1:
        return rgb
    image.putalpha(shown)  # however faint: 8 bits weighted by little would lose the colour
    wide = spread_colors(image.convert("RGBa").reduce(2).convert("RGBA"))
    return Image.composite(rgb, wide.resize(image.size, Image.Resampling.BILINEAR), shown)


def scale_key(image: Image.Image) -> None:
    """Brings a PNG's transparent colour to the depth to which Pillow brings the pixels, which it forgets."""
    key = image.info.get("transparency")
    if not isinstance(image, PngImagePlugin.PngImageFile) or key is None:
        return
    stored = image.tile[0][3] if image.tile else None
    if stored in ("L;2", "L;4"):
        image.info["transparency"] = key * {"L;2": 85, "L;4": 17}[stored]
    elif stored == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)


def upright(image: Image.Image, original: Image.Image) -> Image.Image:
    """Turns an image, made of an original, as the EXIF orientation of that says.

    Not by ImageOps.exif_transpose: that writes the whole EXIF block anew and fails on any odd tag in it.
    """
    try:
        orientation = original.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # whatever Pillow raises; a damaged EXIF block is no reason to refuse the picture
        return image
    return image.transpose(ORIENTATIONS[orientation]) if orientation in ORIENTATIONS else image


def split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Parts an image of any mode into colour (L, RGB, CMYK or LAB) and, if it has any, alpha (L)."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return split_deep_alpha(image)
    if image.has_transparency_data:
        *color, alpha = image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA").split()
        return (color[0] if len(color) == 1 else Image.merge("RGB", color)), alpha
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def split_deep_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """:func:`split_alpha` for greys of more than 8 bits, which Pillow's own conversion clips.

    In modes I and F the value of white is not written down: it is taken to be the least of the usual ones that no
    pixel exceeds.
    """
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    (bits, *_) = tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))
    (sign, *_) = tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))
    values = np.asarray(image)
    if image.mode == "I" and tags and sign == 1:
        values = values.view(np.uint32)  # Pillow takes them for signed
    values = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)
    brightest = values.max()
    if image.mode.startswith("I;16"):
        white = 2.0**bits - 1
    elif image.mode == "I" and tags and (bits, sign) == (16, 2):
        white = 2.0**15 - 1
    else:
        usual = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0, 2.0**31, 2.0**32)
        white = next((white for white in usual if brightest <= white), brightest)
    grey = Image.fromarray((values.clip(0, white) * (255 / white)).round().astype(np.uint8))
    if image.mode.startswith("I;16") and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        grey = ImageOps.invert(grey)  # Pillow turns greys that are the other way round for 8 bits alone
    transparent = image.info.get("transparency")
    if transparent is None:
        return grey, None
    return grey, Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))


def to_srgb(color: Image.Image, profile: bytes | None) -> Image.Image:
    """Converts L, RGB, CMYK or LAB to RGB, from the colour space of an ICC profile if there is one."""
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
    return color.convert("RGB")


def to_tensor(image: Image.Image) -> Tensor:
    """An image of mode L or RGB as uint8, 1×H×W or 3×H×W."""
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()
