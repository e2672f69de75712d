"""Decodes flavours of TIFF that Pillow does not decode correctly, by tifffile, if that is installed."""

from importlib.util import find_spec
from io import BytesIO

import numpy as np
from PIL import Image

from ...errors import UnsupportedFormat
from .colour import Bands, usual_white
from .encoded import pillow_errors, truncated
from .flavour import CHANNELS, CMYK, FLOAT, GREY, GREY_INVERTED, INT, RGB, Flavour

HELP = "pip install tifffile imagecodecs, or save it with 8 bits and deflate, LZW or no compression"
BITS = {1: (8, 16, 32), INT: (8, 16, 32), FLOAT: (16, 32, 64)}
ASSOCIATED, UNASSOCIATED = 1, 2
BY_TIFFFILE = (1, 8, 32946)  # compressions that need no imagecodecs
BY_IMAGECODECS = (*BY_TIFFFILE, 5, 32773, 34925, 50000, 50001, 33003, 33004, 33005, 34712, 34887, 50002, 52546)


def require(flavour: Flavour) -> None:
    """Raises UnsupportedFormat for a flavour that is not supported, or needs packages that are not installed."""
    known = (
        flavour.photometric in (GREY_INVERTED, GREY, RGB, CMYK)
        and len(set(flavour.bits)) == len(set(flavour.kinds)) == 1
        and flavour.bits[0] in BITS.get(flavour.kinds[0], ())
        and CHANNELS[flavour.photometric] <= flavour.samples <= 8
        and flavour.compression in BY_IMAGECODECS
        and flavour.fill == 1
    )
    if not known:
        raise UnsupportedFormat(f"{flavour} is not supported; save it with 8 bits and deflate or no compression")
    plain = flavour.compression in BY_TIFFFILE and flavour.predictor != 3
    if not find_spec("tifffile") or not (plain or find_spec("imagecodecs")):
        raise UnsupportedFormat(f"{flavour} is not supported here; {HELP}")


def load(bare: bytes, flavour: Flavour) -> Bands:
    """Decodes the pixels."""
    import tifffile

    with pillow_errors("the image"), tifffile.TiffFile(BytesIO(bare)) as file:
        page = file.pages[0]
        ends = [place + size for place, size in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if min(page.databytecounts) < 1 or max(ends) > len(bare):
            raise truncated("TIFF")
        values = page.asarray(maxworkers=1)
        planes = flavour.planar == 2 and flavour.samples > 1
        shape = (flavour.samples, flavour.height, flavour.width) if planes else (flavour.height, flavour.width, -1)
        values = np.moveaxis(values.reshape(shape), 0, -1) if planes else values.reshape(shape)
        return bands(values, flavour)


def bands(values: np.ndarray, flavour: Flavour) -> Bands:
    """Colour and opacity of samples, H×W×N."""
    count = CHANNELS[flavour.photometric]
    white = white_of(values[..., :count], flavour.bits[0], flavour.kinds[0])
    color = eight_bits(values[..., :count], white)
    if flavour.photometric == GREY_INVERTED:
        color = 255 - color
    kind = next((each for each in flavour.extra if each in (ASSOCIATED, UNASSOCIATED)), None)
    alpha = None
    if kind is not None and (place := count + flavour.extra.index(kind)) < flavour.samples:
        opacity = values[..., place]
        alpha = eight_bits(opacity, white_of(opacity, flavour.bits[0], flavour.kinds[0]))
        if kind == ASSOCIATED:
            shown = np.maximum(alpha, 1)[..., None] / np.float32(255)
            color = (color / shown).clip(0, 255).round().astype(np.uint8)
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[count]
    image = Image.frombytes(mode, (flavour.width, flavour.height), np.ascontiguousarray(color).tobytes())
    return image, None if alpha is None else Image.fromarray(alpha)


def white_of(values: np.ndarray, bits: int, kind: int) -> float:
    """The value of white: the maximum of the bits or, if unknown, the smallest usual value that no pixel exceeds."""
    if bits <= 16 and kind != FLOAT:
        return 2.0 ** (bits - (kind == INT)) - 1
    return usual_white(float(np.nan_to_num(values, posinf=0, neginf=0).max()), floating=kind == FLOAT)


def eight_bits(values: np.ndarray, white: float) -> np.ndarray:
    """Values from 0 to white, as bytes; NaN becomes 0."""
    values = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)
    levels: np.ndarray = (values.clip(0, white) * (255 / white)).round()
    return levels.astype(np.uint8)
