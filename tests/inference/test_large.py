import numpy as np
import pytest
import torch
from PIL import Image

from perceptual.inference import images, large
from perceptual.inference.large import fitted, painted_side, stylize_large
from perceptual.inference.predictor import load
from perceptual.options import StyleOptions, UpscaleOptions

pytestmark = pytest.mark.slow  # stylizes large photos


@pytest.fixture
def small_limits(monkeypatch):
    """Photos of 64 × 48 count as large, and are painted at 24 × 18."""
    monkeypatch.setattr(large, "LARGE", 1000)
    monkeypatch.setattr(large, "PAINTED", 400)


@pytest.fixture(scope="module")
def networks(weights, upscaler):
    return load(weights, "cpu"), load(upscaler, "cpu")


def test_a_large_photo_is_painted_small_and_enlarged_to_its_size(small_limits, networks, photo):
    style, upscaler = networks
    picture = images.decode(photo)
    result = stylize_large(style, upscaler, picture, StyleOptions())
    painted = style.stylize_pictures([images.shrink(picture, 24)], [StyleOptions()])
    assert painted[0].rgb.shape == (3, 18, 24)
    (enlarged,) = upscaler.upscale_pictures(painted, [UpscaleOptions()])
    assert torch.equal(result.rgb, fitted(enlarged, picture).rgb) and result.rgb.shape == picture.rgb.shape


def test_a_tile_for_the_style_is_not_too_large_for_what_enlarges(small_limits, networks, photo, monkeypatch):
    style, upscaler = networks
    upscale, asked = upscaler.upscale_pictures, []
    monkeypatch.setattr(upscaler, "upscale_pictures", lambda p, o, w: asked.append(o[0].tile) or upscale(p, o, w))
    picture = images.decode(photo)
    made = [stylize_large(style, upscaler, picture, StyleOptions(tile=tile)).rgb for tile in (None, 2048, 512)]
    assert asked == [None, 1024, 512]
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


def test_the_photo_s_share_is_taken_at_its_own_size(small_limits, networks, photo):
    picture = images.decode(photo)
    result = stylize_large(*networks, picture, StyleOptions(strength=0.0))
    assert torch.equal(result.rgb, picture.rgb)
    kept = stylize_large(*networks, picture, StyleOptions(keep_colors=True))
    chroma = [np.asarray(each.to_pil().convert("YCbCr"))[..., 1:].astype(int) for each in (kept, picture)]
    assert np.abs(chroma[0] - chroma[1]).mean() < 12  # levels; what is clipped changes
    free = np.asarray(stylize_large(*networks, picture, StyleOptions()).to_pil().convert("YCbCr"))[..., 1:]
    assert np.abs(free - chroma[1]).mean() > 2 * np.abs(chroma[0] - chroma[1]).mean()


def test_the_enlargement_always_reaches_the_photo_s_size():
    for width, height in ((6000, 4000), (2049, 2049), (8192, 8192), (20000, 300), (4001, 2999)):
        side = painted_side(images.Picture(torch.empty(3, height, width, device="meta")), 4)
        assert 4 * side >= max(width, height) > side
        assert side * side * height / width >= large.PAINTED * 0.9 or width == 20000


def test_the_command_paints_large_photos_small_unless_told_not_to(
    run, small_limits, networks, weights, upscaler, photo, tmp_path, monkeypatch
):
    monkeypatch.setattr("perceptual.inference.conversion.UPSCALER", upscaler)
    (tmp_path / "photo.png").write_bytes(photo)
    line = ("stylize", tmp_path / "photo.png", "--model", weights, "--device", "cpu", "-o", tmp_path / "out.png")
    picture = images.decode(photo)
    shrunk = images.shrink(picture, 32)  # 32 × 24 are not large
    reduced = images.shrink(picture, 48)  # 48 × 36 are large
    for arguments, expected in (
        ((), stylize_large(*networks, picture, StyleOptions())),
        (("--tile", "2048"), stylize_large(*networks, picture, StyleOptions())),
        (("--own-size",), networks[0].stylize_pictures([picture], [StyleOptions()])[0]),
        (("--max-size", "32"), networks[0].stylize_pictures([shrunk], [StyleOptions()])[0]),
        (("--max-size", "48"), networks[0].stylize_pictures([reduced], [StyleOptions()])[0]),
        (("--max-size", "16384"), networks[0].stylize_pictures([picture], [StyleOptions()])[0]),
    ):
        assert run(*line, *arguments)[0] == 0
        with Image.open(tmp_path / "out.png") as found:
            assert np.array_equal(np.asarray(found), np.asarray(expected.to_pil()))
