"""A picture gets the contrast of another at each scale, and nothing else changes."""

import cv2
import numpy as np
import pytest
from PIL import Image

from perceptual.video.contrast import colour_transfer, with_contrast


@pytest.fixture
def photo():
    return np.asarray(Image.open("docs/photos/coffee.jpg"), np.float32)[100:261, 60:301]  # odd sides


def test_a_picture_that_has_the_contrast_stays_as_it_is(photo):
    assert np.abs(with_contrast(photo, photo) - photo).max() < 0.01


@pytest.mark.parametrize("sigma", [1, 2, 4])
@pytest.mark.parametrize("coarse", [0.9, 0.8])
def test_each_scale_gets_the_contrast_of_the_other(photo, sigma, coarse):
    def covariances(picture):
        band = cv2.GaussianBlur(picture, (0, 0), sigma) - cv2.GaussianBlur(picture, (0, 0), 2 * sigma)
        return np.cov(band.reshape(-1, 3).T)

    light = cv2.GaussianBlur(photo, (0, 0), 5)
    other = (photo.mean() + coarse * (light - photo.mean()) + (0.8, 0.9, 0.7) * (photo - light)).astype(np.float32)
    before, after, wanted = map(covariances, (other, with_contrast(other, photo), photo))
    assert np.linalg.norm(after - wanted) < 0.5 * np.linalg.norm(before - wanted)
    assert np.linalg.norm(after - wanted) < 0.12 * np.linalg.norm(wanted)


def test_light_stays(photo):
    other = photo[::-1, ::-1] * 0.7
    changed = with_contrast(photo, np.ascontiguousarray(other))
    assert np.abs(cv2.blur(changed - photo, (129, 129))).mean() < 3
    assert changed.mean((0, 1)) == pytest.approx(photo.mean((0, 1)), abs=1)


def test_colours_get_the_others_covariances_and_change_the_least():
    rng = np.random.default_rng(0)
    given = rng.normal(size=(500, 40, 3)).astype(np.float32) * (30, 20, 10)
    mixing = np.array([[40, 5, 3], [5, 20, 8], [3, 8, 30]])
    wanted = rng.normal(size=(500, 40, 3)) @ mixing
    matrix = colour_transfer(given.astype(np.float32), wanted.astype(np.float32))
    assert np.cov((given @ matrix).reshape(-1, 3).T) == pytest.approx(np.cov(wanted.reshape(-1, 3).T), rel=0.03, abs=9)
    assert np.allclose(matrix, matrix.T, atol=1e-5) and (np.linalg.eigvalsh(matrix) > 0).all()  # a gradient: optimal


def test_flat_pictures_stay_flat():
    flat = np.full((33, 40, 3), 128, np.float32)
    noisy = flat + np.random.default_rng(0).normal(0, 30, flat.shape).astype(np.float32)
    assert np.abs(with_contrast(flat, noisy) - flat).max() < 0.01
    assert np.abs(with_contrast(flat, flat) - flat).max() < 0.01
