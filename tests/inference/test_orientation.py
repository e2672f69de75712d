from io import BytesIO

import numpy as np
import pytest
import torch
from image_files import alpha_photo, as_array, color_photo, difference, exif, save
from PIL import Image, ImageOps

from perceptual.inference import images

# Where the first row and the first column of the stored pixels lie in the upright picture (EXIF 2.3, 4.6.4 A).
FIRST_ROW_AND_COLUMN = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def stored(upright, orientation):
    row, column = FIRST_ROW_AND_COLUMN[orientation]
    pixels = upright.swapaxes(0, 1) if row in ("left", "right") else upright
    if row in ("right", "bottom"):
        pixels = pixels[::-1]
    if column in ("right", "bottom"):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("format", "options", "within"),
    [
        ("JPEG", {"quality": 100, "subsampling": 0}, 5),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
    ],
)
def test_orientation(orientation, format, options, within):
    upright = color_photo()
    data = save(Image.fromarray(stored(upright, orientation)), format, exif=exif(orientation), **options)
    assert difference(images.decode(data), upright) <= within


def test_orientation_turns_alpha_too():
    upright = np.dstack([color_photo(), alpha_photo()])
    picture = images.decode(save(Image.fromarray(stored(upright, 6)), "PNG", exif=exif(6)))
    np.testing.assert_array_equal(as_array(torch.cat([picture.rgb, picture.alpha])), upright)


def test_orientation_of_a_pil_image_that_is_not_loaded_yet():
    upright = color_photo()
    data = save(Image.fromarray(stored(upright, 8)), "PNG", exif=exif(8))
    assert difference(images.from_pil(Image.open(BytesIO(data))), upright) == 0


@pytest.mark.parametrize("orientation", [0, 9, 700])
def test_unknown_orientation_is_ignored(orientation):
    data = save(Image.fromarray(color_photo()), "PNG", exif=exif(orientation))
    assert difference(images.decode(data), color_photo()) == 0


def test_odd_tag_beside_the_orientation():
    block = exif(6)
    block[0x0128] = 2
    odd = block.tobytes().replace(b"\x01\x28\x00\x03", b"\x01\x28\x00\x02")  # a number that claims to be text
    upright = color_photo()
    data = save(Image.fromarray(stored(upright, 6)), "PNG", exif=odd)
    with pytest.raises(Exception, match="required argument"):
        ImageOps.exif_transpose(Image.open(BytesIO(data)))
    assert difference(images.decode(data), upright) == 0


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_lose_the_picture():
    data = save(Image.fromarray(color_photo()), "PNG", exif=b"Exif\0\0MM\0*garbage")
    assert difference(images.decode(data), color_photo()) == 0
