import numpy as np
import pytest
import torch
from matlab import imresize
from scipy.ndimage import gaussian_filter

from perceptual_training.degradation import degrade


@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize("degradation", ["paper", "bicubic"])
def test_against_scipy_and_imresize(scale, degradation):
    target = np.random.default_rng(0).random((2, 3, 32, 48))
    found = degrade(torch.from_numpy(target), scale, degradation)
    assert found.shape == (2, 3, 32 // scale, 48 // scale)
    for image, reduced in zip(target.reshape(-1, 32, 48), found.reshape(-1, 32 // scale, 48 // scale), strict=True):
        blurred = gaussian_filter(image, 1.0, mode="mirror") if degradation == "paper" else image
        expected = imresize(blurred, 32 // scale, 48 // scale).clip(0, 1)
        assert np.abs(reduced.numpy() - expected).max() <= 0.5 / 255 + 2e-4  # scipy cuts its Gaussian off elsewhere


def test_inputs_are_such_as_a_file_can_hold():
    found = degrade((torch.rand(1, 3, 32, 32) > 0.5).float(), 4, "bicubic") * 255  # bicubic overshoots
    torch.testing.assert_close(found, found.round(), atol=1e-4, rtol=0)
    assert found.min() >= 0 and found.max() <= 255


def test_is_not_computed_in_half_precision():
    target = torch.rand(1, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = degrade(target, 4, "paper")
    assert inside.dtype == torch.float32 and torch.equal(inside, degrade(target, 4, "paper"))


def test_targets_that_cannot_be_divided_are_refused():
    with pytest.raises(ValueError, match="cannot be divided by 8"):
        degrade(torch.rand(1, 3, 32, 36), 8, "paper")
