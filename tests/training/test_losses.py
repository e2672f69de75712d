import numpy as np
import pytest
import torch

from perceptual_training.losses import (
    FeatureReconstructionLoss,
    GridLoss,
    PixelLoss,
    StyleReconstructionLoss,
    TotalVariationLoss,
    gram_matrix,
)
from perceptual_training.machine import bfloat16

A = {"one": torch.randn(2, 3, 4, 5, dtype=torch.float64), "two": torch.randn(2, 6, 2, 2, dtype=torch.float64)}
B = {layer: torch.randn_like(value) for layer, value in A.items()}


def reference_gram(features):
    """Equation 3 of the paper, entry by entry."""
    n, c, h, w = features.shape
    gram = np.zeros((n, c, c))
    for image, a, b in np.ndindex(n, c, c):
        gram[image, a, b] = sum(
            features[image, a, y, x] * features[image, b, y, x] for y in range(h) for x in range(w)
        ) / (c * h * w)
    return gram


def test_gram_matrix_of_a_worked_example():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # two channels of 1 × 2
    assert gram_matrix(features).tolist() == [[[5 / 4, 11 / 4], [11 / 4, 25 / 4]]]


@pytest.mark.parametrize("layer", A)
def test_gram_matrix_against_the_definition(layer):
    np.testing.assert_allclose(gram_matrix(A[layer]).numpy(), reference_gram(A[layer].numpy()), rtol=1e-12)


def test_gram_matrix_is_not_computed_in_half_precision():
    features = torch.full((1, 2, 64, 64), 300.0, dtype=torch.float16)  # the sum overflows in float16
    with torch.autocast("cpu", torch.bfloat16):
        assert gram_matrix(features).dtype == torch.float32
        assert gram_matrix(features)[0, 0, 1].item() == 300.0**2 / 2


def test_gram_matrix_of_bfloat16_features_loses_nothing_to_the_processor():
    features = torch.randn(2, 64, 96, 97).relu().bfloat16()
    expected = reference_products(features.double())
    with bfloat16(torch.device("cpu"), enabled=True):
        found = gram_matrix(features)
    assert found.dtype == torch.float32
    assert torch.get_float32_matmul_precision() == "highest"
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


def reference_products(features):
    """Equation 3 of the paper as a sum of products, in the features' own type."""
    return torch.einsum("nahw,nbhw->nab", features, features) / features[0].numel()


def test_gradient_of_the_gram_matrix():
    assert torch.autograd.gradcheck(gram_matrix, A["two"].clone().requires_grad_())
    features = torch.randn(2, 8, 6, 7, requires_grad=True)
    weights = torch.randn(2, 8, 8)  # not symmetric
    (gram_matrix(features) * weights).sum().backward()
    (expected,) = torch.autograd.grad((reference_products(features) * weights).sum(), features)
    torch.testing.assert_close(features.grad, expected)


def test_gram_matrix_does_not_depend_on_the_memory_format():
    features = torch.randn(2, 8, 6, 7)
    channels_last = features.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(gram_matrix(channels_last), gram_matrix(features))


def test_feature_reconstruction_against_the_definition():
    weights = {"one": 2.0, "two": 0.5}
    expected = sum(
        weight * np.mean([((a - b) ** 2).sum() / a.size for a, b in zip(A[k].numpy(), B[k].numpy(), strict=True)])
        for k, weight in weights.items()
    )
    assert FeatureReconstructionLoss(weights)(A, B).item() == pytest.approx(expected, rel=1e-12)


def test_style_reconstruction_against_the_definition():
    weights = {"one": 2.0, "two": 0.5}
    style = {layer: value[:1] for layer, value in B.items()}
    loss = StyleReconstructionLoss(weights, style)
    expected = {}
    for layer in weights:
        difference = reference_gram(A[layer].numpy()) - reference_gram(style[layer].numpy())
        c = difference.shape[-1]
        expected[layer] = np.mean([np.linalg.norm(d, "fro") ** 2 / c**2 for d in difference])
        assert loss.layers(A)[layer].mean().item() == pytest.approx(expected[layer], rel=1e-12)
    assert loss(A).item() == pytest.approx(sum(weights[k] * expected[k] for k in weights), rel=1e-12)


def test_pixel_loss_counts_levels_of_a_byte():
    target = torch.zeros(1, 3, 2, 2)
    assert PixelLoss(2)(target + 3 / 255, target).item() == pytest.approx(18)
    target.requires_grad_()
    image = torch.rand(1, 3, 2, 2, requires_grad=True)
    PixelLoss(1)(image, target).backward()
    assert target.grad is None and image.grad is not None


def test_total_variation_of_a_worked_example():
    image = torch.tensor([[[[0.0, 1.0], [0.0, 3.0]]]])
    # Down: 0 and 2, mean square 2. Right: 1 and 3, mean square 5.
    assert TotalVariationLoss(10)(image).item() == 70
    assert TotalVariationLoss(10)(torch.ones(1, 3, 4, 4)).item() == 0


def test_gradients():
    torch.manual_seed(0)
    style = {"one": torch.randn(1, 2, 3, 3, dtype=torch.float64)}
    target = {"one": torch.randn(2, 2, 3, 3, dtype=torch.float64)}
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    style_loss, feature_loss = StyleReconstructionLoss({"one": 3.0}, style), FeatureReconstructionLoss({"one": 2.0})
    assert torch.autograd.gradcheck(lambda x: style_loss({"one": x}), x)
    assert torch.autograd.gradcheck(lambda x: feature_loss({"one": x}, target), x)
    assert torch.autograd.gradcheck(TotalVariationLoss(5.0), x)


def test_targets_get_no_gradient():
    target = torch.randn(1, 2, 3, 3, requires_grad=True)
    features = torch.randn(1, 2, 3, 3, requires_grad=True)
    FeatureReconstructionLoss({"one": 1.0})({"one": features}, {"one": target}).backward()
    assert features.grad is not None and target.grad is None


@pytest.mark.parametrize("period", [2, 4, 8])
def test_the_grid_loss_is_the_variance_of_a_repeated_pattern(period):
    torch.manual_seed(0)
    targets = 0.3 + 0.2 * torch.rand(2, 3, 16 * period, 20 * period)
    pattern = torch.rand(3, period, period) / 10
    grid = GridLoss(2, period)
    expected = 2 * (255 * pattern).flatten(1).var(dim=1, correction=0).mean()
    torch.testing.assert_close(grid(targets + pattern.repeat(1, 16, 20), targets), expected)
    assert grid(targets + 0.1, targets) < 1e-6  # another brightness is no grid


def test_detail_that_does_not_repeat_counts_little_as_a_grid():
    torch.manual_seed(0)
    targets = torch.rand(1, 3, 128, 128)
    noise = torch.rand_like(targets) / 10
    all_of_it = PixelLoss(1)(targets + noise - noise.mean(), targets)
    assert GridLoss(1, 4)(targets + noise, targets) < 0.03 * all_of_it


def test_the_target_of_the_grid_loss_is_a_constant():
    images, targets = (torch.rand(1, 3, 32, 32, requires_grad=True) for _ in range(2))
    GridLoss(1, 4)(images, targets).backward()
    assert images.grad.any() and targets.grad is None
