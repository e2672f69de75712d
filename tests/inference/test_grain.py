import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from perceptual.errors import InvalidOption
from perceptual.inference.grain import PERIOD, SCALES, STRONGEST, noise, pattern, with_grain
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.predictor import Predictor, load
from perceptual.inference.weights import save_network


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = StyleNetwork(init_features=4, num_residuals=1, grain=0.5)
    return made.eval().requires_grad_(False)


@pytest.fixture
def predictor(network):
    return Predictor(network, {"config": network.config, "provenance": {"name": "mine"}}, device="cpu")


def pixels_of(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]


def test_grain_is_gaussian_noise_of_two_scales():
    found = pattern()[0].double()
    assert found.shape == (3, PERIOD, PERIOD)
    torch.testing.assert_close(found.std(dim=(1, 2)), torch.ones(3, dtype=torch.double), atol=0.05, rtol=0)
    assert found.mean().abs() < 0.05
    random = np.random.default_rng(0)
    parts = [gaussian_filter(random.standard_normal((PERIOD, PERIOD)), sigma, mode="wrap") for sigma, _ in SCALES]
    reference = sum(weight * part / part.std() for part, (_, weight) in zip(parts, SCALES, strict=True))

    def correlation(grain, distance):
        return float((grain * np.roll(grain, distance, axis=-1)).mean() / (grain**2).mean())

    for distance in (2, 4, 8):
        expected = correlation(reference, distance)
        assert correlation(found.numpy(), distance) == pytest.approx(expected, abs=0.05)
    assert abs(np.corrcoef(found.reshape(3, -1).numpy())[0, 1]) < 0.05  # each channel has its own


def test_grain_continues_beyond_its_period():
    found = pattern()
    inside = (found[..., 1:] - found[..., :-1]).abs().max()
    assert (found[..., 0] - found[..., -1]).abs().max() < 1.5 * inside
    assert (found[..., 0, :] - found[..., -1, :]).abs().max() < 1.5 * inside
    grey = torch.full((1, 3, PERIOD + 40, PERIOD + 30), 0.5)
    grained = with_grain(grey, [1.0])
    assert torch.equal(grained[..., PERIOD:, :], grained[..., :40, :])
    assert torch.equal(grained[..., PERIOD:], grained[..., :30])


def test_each_image_gets_its_own_strength_of_the_same_grain():
    grey = torch.full((3, 3, 40, 50), 0.5)
    grained = with_grain(grey, [0.0, 0.5, 1.0])
    assert torch.equal(grained[0], grey[0])
    for image, strength in zip(grained, (0.0, 0.5, 1.0), strict=True):
        expected = strength * STRONGEST * pattern()[0, :, :40, :50]
        torch.testing.assert_close(255 * (image - 0.5), expected, atol=0.51, rtol=0)


def test_bytes_and_floats_get_the_same_grain():
    images = torch.randint(0, 256, (2, 3, 30, 20), dtype=torch.uint8)
    images[0, :, :15] = 0
    images[1, :, :15] = 255
    grained = with_grain(images, [0.5, 1.0])
    expected = 255 * with_grain(images.float() / 255, [0.5, 1.0])
    assert grained.dtype == torch.uint8
    assert expected.min() >= 0
    assert expected.max() <= 255
    torch.testing.assert_close(grained.float(), expected, atol=1e-4, rtol=0)


def test_every_period_has_the_same_grain():
    images = torch.zeros(1, 3, PERIOD + 5, 2 * PERIOD + 7, dtype=torch.uint8)
    grained, tile = with_grain(images, [0.5]), with_grain(images[..., :PERIOD, :PERIOD], [0.5])
    for top in (0, PERIOD):
        for left in (0, PERIOD, 2 * PERIOD):
            part = grained[..., top : top + PERIOD, left : left + PERIOD]
            assert torch.equal(part, tile[..., : part.shape[2], : part.shape[3]])
    assert images.max() == 0


def test_without_grain_images_are_as_they_were():
    images = torch.rand(1, 3, 8, 8)
    assert with_grain(images, [0.0]) is images


def test_noise_of_a_training_differs_from_image_to_image():
    torch.manual_seed(1)
    made = noise(2, 64, 48)
    assert made.shape == (2, 3, 64, 48)
    assert abs(float(torch.corrcoef(made.flatten(1))[0, 1])) < 0.2


def test_a_network_stylizes_with_its_own_grain_unless_asked_otherwise(predictor):
    photo = Image.linear_gradient("L").resize((60, 44)).convert("RGB")
    usual, half, none, full = (pixels_of(predictor.stylize(photo, grain=grain)).float() for grain in (None, 0.5, 0, 1))
    assert torch.equal(usual, half)
    assert (usual - none).abs().mean() > 0.5
    assert (full - none).abs().mean() > (usual - none).abs().mean()
    with torch.inference_mode():
        photos = pixels_of(photo)
        expected = predictor.network(with_grain(photos, [0.5]).float() / 255)
    assert (usual - 255 * expected).abs().max() <= 0.501


def test_grain_is_part_of_no_photo(predictor):
    photo = Image.effect_noise((60, 44), 80).convert("RGB")
    assert predictor.stylize(photo, strength=0).tobytes() == photo.tobytes()


def test_grain_is_the_same_in_bands_and_in_batches(predictor):
    photo = Image.effect_noise((200, 300), 80).convert("RGB")
    whole = pixels_of(predictor.stylize(photo, grain=1)).float()
    bands = pixels_of(predictor.stylize(photo, grain=1, tile=128)).float()
    assert (whole - bands).abs().max() <= 1
    photos = pixels_of(photo).float().div(255).repeat(2, 1, 1, 1)
    batch = 255 * predictor(photos, grain=1)
    assert (whole - batch).abs().max() <= 0.51


def test_a_file_keeps_its_grain_and_older_ones_have_none(network, tmp_path):
    save_network(tmp_path / "mine.safetensors", network, {"name": "mine"})
    assert load(tmp_path / "mine.safetensors", "cpu").network.grain == 0.5
    network.config.pop("grain")
    save_network(tmp_path / "older.safetensors", network, {"name": "older"})
    older = load(tmp_path / "older.safetensors", "cpu")
    assert older.network.grain == 0
    encoded = io.BytesIO()
    Image.new("RGB", (20, 20), "grey").save(encoded, "PNG")
    assert older.stylize(encoded.getvalue()).tobytes() == older.stylize(encoded.getvalue(), grain=0).tobytes()


@pytest.mark.parametrize("grain", [-0.1, 1.1, float("nan")])
def test_grain_is_from_0_to_1(predictor, grain):
    with pytest.raises(InvalidOption, match="grain: expected a number from 0 to 1"):
        predictor.stylize(Image.new("RGB", (20, 20)), grain=grain)
    with pytest.raises(ValueError, match="grain"):
        StyleNetwork(init_features=4, grain=grain)
