import numpy as np
import pytest
import torch
from matlab import imresize, keys_kernel

from perceptual.inference.resampling import mirror, resize_bicubic


@pytest.mark.parametrize(
    ("size", "factor"), [((24, 48), 1 / 4), ((48, 16), 1 / 8), ((9, 12), 4), ((5, 3), 8), ((1, 1), 4), ((4, 8), 1 / 4)]
)
def test_is_matlab_s_imresize_to_the_border(size, factor):
    image = np.random.default_rng(0).random(size)
    expected = imresize(image, round(size[0] * factor), round(size[1] * factor))
    found = resize_bicubic(torch.from_numpy(image)[None, None], factor)[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_row_of_known_values():
    # Reduced by four, weights at distances of 1/8, 3/8, … of an output pixel, as in MATLAB's imresize of a unit step.
    step = torch.tensor([0.0] * 8 + [1.0] * 8, dtype=torch.float64).expand(1, 1, 16, 16)
    row = resize_bicubic(step, 1 / 4)[0, 0, 0]
    weights = [keys_kernel((i + 0.5) / 4 - 2) / 4 for i in range(16)]
    low = sum(weights[10:])  # the step begins ten samples into the second output's kernel
    torch.testing.assert_close(row, torch.tensor([sum(weights[14:]), low, 1 - low, 1 - sum(weights[14:])]).double())


def test_mirrors_with_the_edge_and_as_often_as_needed():
    x = torch.arange(3.0).view(1, 1, 1, 3)
    assert mirror(x, 2)[0, 0, 0].tolist() == [1, 0, 0, 1, 2, 2, 1]
    assert mirror(x, 4)[0, 0, 0].tolist() == [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]


def test_sides_that_cannot_be_divided_are_refused():
    with pytest.raises(ValueError, match="10×8 pixels cannot be divided by 4"):
        resize_bicubic(torch.rand(1, 1, 8, 10), 1 / 4)
