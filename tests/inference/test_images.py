from io import BytesIO

import numpy as np
import pytest
import torch
from image_files import WIDTH, alpha_photo, as_array, color_photo, merge, save
from PIL import Image

from perceptual.errors import ImageTooLarge, InputError, InvalidImage
from perceptual.inference import images
from perceptual.inference.images import Picture


def test_what_is_transparent_is_white_when_laid_on_it():
    picture = Picture(torch.tensor([[[10, 10, 10]]] * 3, dtype=torch.uint8), torch.tensor([[[0, 255, 51]]]).byte())
    assert picture.opaque()[0].tolist() == [[255, 10, 206]]  # 0.2 · 10 + 0.8 · 255
    assert Picture(picture.rgb).opaque() is picture.rgb


def test_colours_of_what_is_transparent_decide_nothing():
    random = np.random.default_rng(0)
    color, alpha = random.integers(0, 256, (90, 70, 3), dtype=np.uint8), np.zeros((90, 70), np.uint8)
    alpha[60:80, 10:30], alpha[61, 11], color[60:80, 10:30] = 255, 3, (200, 100, 50)
    other = np.where(alpha[..., None] > 0, color, 255 - color)
    one, two = (images.from_pil(merge(each, alpha)).without_hidden_colors() for each in (color, other))
    assert torch.equal(one.rgb, two.rgb) and torch.equal(one.alpha[0], torch.from_numpy(alpha))
    assert np.array_equal(as_array(one.rgb)[alpha > 0], color[alpha > 0])
    assert np.abs(as_array(one.rgb).astype(int) - (200, 100, 50)).max() <= 4  # around it as it is, but for rounding
    gone = images.from_pil(merge(color, np.zeros_like(alpha))).without_hidden_colors()
    assert gone.rgb.max() == 0
    faint = np.broadcast_to(np.arange(70).clip(40, 43) - 40, (90, 70)).astype(np.uint8)  # alpha from 0 to 3
    orange = images.from_pil(merge(np.where(faint[..., None] > 0, (200, 100, 50), 9).astype(np.uint8), faint))
    assert np.abs(as_array(orange.without_hidden_colors().rgb).astype(int) - (200, 100, 50)).max() <= 4
    opaque = images.from_pil(merge(color, np.full_like(alpha, 9)))
    assert opaque.without_hidden_colors() is opaque


@pytest.mark.parametrize("make", [lambda folder: folder / "missing.jpg", lambda folder: folder, lambda folder: "a\0b"])
def test_read_names_a_path_that_cannot_be_read(tmp_path, make):
    path = make(tmp_path)
    with pytest.raises(InvalidImage) as failure:
        images.read(path)
    assert str(failure.value).startswith(f"cannot read {path}: ")


def test_read_says_what_a_photo_may_be():
    for photo in (None, np.zeros((8, 8, 3), np.uint8), BytesIO()):
        expected = f"^expected a path, the bytes of an image file, or a PIL image, got {type(photo).__name__}$"
        with pytest.raises(InputError, match=expected):
            images.load(photo)


def test_read(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"content")
    assert images.read(tmp_path / "photo.png") == images.read(str(tmp_path / "photo.png")) == b"content"


def picture_of(*colors, alpha=None, size=16):
    """Stripes of one colour each."""
    rgb = torch.tensor(colors, dtype=torch.uint8).T[:, None].repeat_interleave(size, dim=2).repeat(1, size, 1)
    return Picture(rgb, None if alpha is None else torch.full_like(rgb[:1], alpha))


def test_png_is_exact():
    original = images.decode(save(merge(color_photo(), alpha_photo()), "PNG"))
    data = images.encode(original, "png")
    assert Image.open(BytesIO(data)).format == "PNG"
    again = images.decode(data)
    assert torch.equal(again.rgb, original.rgb)
    assert torch.equal(again.alpha, original.alpha)


def test_jpeg_lays_alpha_on_white():
    data = images.encode(picture_of((200, 0, 40), (0, 0, 0), alpha=128), "jpeg", quality=100)
    image = Image.open(BytesIO(data))
    assert (image.format, image.mode) == ("JPEG", "RGB")
    for x, color in ((4, (200, 0, 40)), (28, (0, 0, 0))):
        expected = [value * 128 / 255 + 255 * 127 / 255 for value in color]
        assert np.abs(np.array(image.getpixel((x, 8))) - expected).max() <= 4


def test_webp_keeps_alpha():
    data = images.encode(picture_of((200, 0, 40), alpha=77), "webp")
    assert Image.open(BytesIO(data)).format == "WEBP"
    again = images.decode(data)
    assert again.alpha.unique().tolist() == [77]
    assert (again.rgb[:, 8, 8].int() - torch.tensor([200, 0, 40])).abs().max() <= 6


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_quality(format):
    noise = Picture(torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))
    assert len(images.encode(noise, format, quality=10)) < len(images.encode(noise, format, quality=95)) / 2


@pytest.mark.parametrize(("format", "limit"), [("jpeg", 65500), ("webp", 16383)])
def test_sides_longer_than_a_format_holds(format, limit):
    longest = Picture(torch.zeros(3, 1, limit, dtype=torch.uint8))
    assert Image.open(BytesIO(images.encode(longest, format))).size == (limit, 1)
    with pytest.raises(ImageTooLarge, match=f"{format} allows at most {limit} pixels a side, not 1×{limit + 1}"):
        images.encode(Picture(torch.zeros(3, limit + 1, 1, dtype=torch.uint8)), format)


def test_to_pil():
    picture = images.decode(save(merge(color_photo(), alpha_photo()), "PNG"))
    np.testing.assert_array_equal(np.array(picture.to_pil()), np.dstack([color_photo(), alpha_photo()]))
    np.testing.assert_array_equal(np.array(Picture(picture.rgb).to_pil()), color_photo())


@pytest.mark.parametrize("max_size", [None, WIDTH, WIDTH + 1])
def test_shrink_never_enlarges(max_size):
    picture = images.from_pil(Image.fromarray(color_photo()))
    assert images.shrink(picture, max_size) is picture


@pytest.mark.parametrize(
    ("size", "max_size", "expected"),
    [((400, 300), 100, (100, 75)), ((300, 400), 100, (75, 100)), ((1000, 3), 16, (16, 1))],
)
def test_shrink_keeps_the_shape(size, max_size, expected):
    picture = images.shrink(images.from_pil(Image.new("RGB", size)), max_size)
    assert picture.to_pil().size == expected
    assert picture.alpha is None


def test_shrink_is_antialiased():
    y, x = np.mgrid[0:256, 0:256]
    checkerboard = images.from_pil(Image.fromarray((((x + y) % 2) * 255).astype(np.uint8)))
    small = images.shrink(checkerboard, 50)
    assert (small.rgb[:, 2:-2, 2:-2].int() - 127).abs().max() <= 8


def test_shrink_keeps_invisible_colors_out():
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (29, 0, 64, 64))  # an edge that falls inside a pixel of the small picture
    small = images.shrink(images.from_pil(image), 16)
    visible = small.alpha[0] > 16
    assert 0 < small.alpha[0, 8, 7] < 255
    assert small.rgb[0][visible].max() <= 8
    assert small.rgb[2][visible].min() >= 247
