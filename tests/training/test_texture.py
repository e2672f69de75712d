"""The texture loss, against a transform by SciPy."""

import numpy as np
import pytest
import scipy.fft
import torch

from perceptual_training.texture import AROUND, BLOCK, STEP, TextureLoss


def reference_strengths(image):
    """Root mean squares of the coefficients of blocks, 63 for each square of blocks."""
    grey = 255 * image.mean(0)
    height, width = ((side - BLOCK) // STEP + 1 for side in grey.shape)
    energies = np.zeros((63, height, width))
    for y, x in np.ndindex(height, width):
        block = grey[y * STEP : y * STEP + BLOCK, x * STEP : x * STEP + BLOCK]
        energies[:, y, x] = scipy.fft.dctn(block, norm="ortho").flatten()[1:] ** 2
    starts = [range(0, side - AROUND + 1, AROUND // 2) for side in (height, width)]
    means = [[energies[:, y : y + AROUND, x : x + AROUND].mean((1, 2)) for x in starts[1]] for y in starts[0]]
    return np.sqrt(np.moveaxis(means, 2, 0) + 1)


def test_strengths_are_those_of_a_reference():
    images = torch.rand(2, 3, 22, 31, dtype=torch.float64)
    expected = np.stack([reference_strengths(image.numpy()) for image in images])
    np.testing.assert_allclose(TextureLoss(1).double().strengths(images), expected, rtol=1e-5)


def test_where_lines_lie_hardly_counts_but_their_strength_and_direction_do():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    lines, moved, across, faint = (
        (0.5 + strength * torch.sin(phase)).expand(1, 3, 64, 64)
        for phase, strength in ((x + y, 0.1), (x + y + 2, 0.1), (x - 0.3 * y, 0.1), (x + y, 0.02))
    )
    loss = TextureLoss(1)
    assert 30 * loss(moved, lines) < min(loss(across, lines), loss(faint, lines))
    assert ((moved - lines) ** 2).mean() > ((faint - lines) ** 2).mean()  # pixels prefer the faint ones


def test_the_weight_is_a_factor_and_the_target_a_constant():
    images, targets = (torch.rand(1, 3, 32, 32, requires_grad=True) for _ in range(2))
    assert TextureLoss(6)(images, targets).item() == pytest.approx(6 * TextureLoss(1)(images, targets).item())
    TextureLoss(1)(images, targets).backward()
    assert images.grad.any() and targets.grad is None


def test_one_colour_has_a_gradient_that_is_finite():
    images = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    TextureLoss(1)(images, torch.rand(1, 3, 32, 32)).backward()
    assert images.grad.isfinite().all()


def test_half_precision_around_it_changes_nothing():
    images, targets = torch.rand(2, 1, 3, 32, 32)
    loss = TextureLoss(1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(images, targets)
    torch.testing.assert_close(inside, loss(images, targets))
