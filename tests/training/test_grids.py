import numpy as np
import pytest
import torch
import torch.nn.functional as F

from perceptual.inference.networks import StyleNetwork
from perceptual_training import parallel, weaves
from perceptual_training.grids import PLAIN, WEAVE, GridProminenceLoss, plain, prominences
from perceptual_training.machine import bfloat16


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def weave(height, width):
    """A pattern of 4 × 2 pixels, of a standard deviation of 1."""
    rows = torch.cos(torch.pi / 2 * torch.arange(height)) * 2**0.5
    return rows[:, None] * torch.cos(torch.pi * torch.arange(width))


def by_fft(image, y, x, reach):
    """The prominence of one frequency, in cycles per image, by numpy: a reference."""
    height, width = image.shape[1:]
    window = np.outer(*(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(side) / side) for side in (height, width)))
    pixels = 255 * image.double().numpy()
    pixels -= pixels.mean(axis=(1, 2), keepdims=True)
    energy = (np.abs(np.fft.fft2(pixels * window)) ** 2).mean(axis=0) + np.square(window).sum() / 12
    steps = range(-reach, reach + 1)
    near = {(a, b): energy[(y + a) % height, (x + b) % width] for a in steps for b in steps}
    grid = np.mean([each for place, each in near.items() if max(map(abs, place)) <= 1])
    return grid / np.mean([each for place, each in near.items() if max(map(abs, place)) > 2])


@pytest.mark.parametrize(("height", "width", "reach"), [(32, 32, 4), (96, 64, 8)])
def test_prominences_are_those_of_the_spectrum(height, width, reach):
    images = torch.rand(2, 3, height, width) + 0.1 * weave(height, width)
    found = prominences(images)
    expected = [
        [by_fft(image, y * height // 4, x * width // 4, reach) for y in range(4) for x in range(4)][1:]
        for image in images
    ]
    torch.testing.assert_close(found.double(), torch.tensor(expected), rtol=1e-4, atol=0)
    assert set(found.topk(2).indices.flatten().tolist()) == {4 + 2 - 1, 12 + 2 - 1}  # (1/4, 1/2), and its conjugate


def loss_of(pictures):
    """The loss of pictures, where plain images stay as they are, which have a little by their noise."""
    return GridProminenceLoss(1.0, 0.0)(lambda x: x, pictures, pictures)["grids"]


def test_strokes_cost_little_however_strong_and_a_faint_grid_does():
    strokes = F.interpolate(torch.rand(2, 3, 24, 24), size=(96, 96), mode="bicubic")
    faint = 4 / 255 * weave(96, 96)
    assert all(loss_of(strength * strokes) < 0.15 for strength in (0.3, 1, 3))
    assert loss_of(0.3 * strokes + faint) > 0.3
    found = GridProminenceLoss(2.0, 0.0)(lambda x: x, strokes + faint, strokes + faint)
    assert found["weave"] == pytest.approx(2 * WEAVE * weaves.weave(strokes + faint).item())  # and none in plain images


def test_pictures_of_plain_images_count_too():
    def draws_a_grid(x):
        return x + 0.02 * weave(*x.shape[2:])

    smooth = torch.full((2, 3, 64, 64), 0.5)
    found = GridProminenceLoss(3.0, 0.0)(draws_a_grid, smooth, smooth)["grids"].item()
    noisy = plain(smooth) + torch.randn(2, 3, PLAIN, PLAIN) / 255
    expected = 3 * prominences(draws_a_grid(noisy)).log().relu().mean().item()
    assert found == pytest.approx(expected, rel=0.1) and expected > 4
    assert loss_of(smooth) < 0.2


def test_plain_images_get_grain_as_photos_do():
    photos = torch.full((4, 3, 36, 100), 0.5)  # whose windows do not fill them
    deviations = []
    for grain in (0.0, 0.5):
        GridProminenceLoss(1.0, grain)(lambda x: deviations.append(x.std()) or x, photos, photos)
    assert deviations[0] == pytest.approx(1 / 255, rel=0.05)
    assert deviations[1] > 4 / 255


def test_spectra_are_of_float32_in_a_training_in_bfloat16():
    pictures = torch.rand(2, 3, 96, 96)
    with bfloat16(torch.device("cpu"), enabled=True):
        found = prominences(pictures.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, prominences(pictures.bfloat16().float()), rtol=0.05, atol=0.05)


def test_plain_images_lie_between_the_corners():
    photos = torch.rand(5, 3, 40, 56)
    images = plain(photos)
    assert images.shape == (5, 3, PLAIN, PLAIN)
    torch.testing.assert_close(images[..., 0, 0], photos[..., 0, 0])
    shares = (images[..., -1, -1] - images[..., 0, 0]) / (photos[..., -1, -1] - photos[..., 0, 0])
    torch.testing.assert_close(shares, shares[:, :1].expand(-1, 3))
    assert 0 <= shares.min() < 0.4 < 0.6 < shares.max() <= 1
    middle = (images[..., 0, PLAIN // 2 - 1] + images[..., 0, PLAIN // 2]) / 2
    torch.testing.assert_close(middle, (images[..., 0, 0] + images[..., 0, -1]) / 2)


def test_each_process_has_the_plain_images_of_its_photos(monkeypatch):
    photos, before = torch.rand(4, 3, 32, 32), torch.get_rng_state()
    whole = plain(photos)
    monkeypatch.setattr(parallel, "world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        torch.set_rng_state(before)
        assert torch.equal(plain(photos[2 * rank : 2 * rank + 2]), whole[2 * rank : 2 * rank + 2])


def test_without_a_weight_the_network_draws_nothing_more():
    assert GridProminenceLoss(0.0, 0.5)(None, None, None) == {}


@pytest.mark.trains
def test_training_removes_patterns_and_keeps_the_contrast():
    """Those of an untrained network, trained by this loss alone."""
    network = StyleNetwork(init_features=8, num_residuals=1).train()
    photos = torch.rand(2, 3, 96, 96)
    contrast = network(photos).std().item()
    grids, optimizer = GridProminenceLoss(1.0, 0.5), torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        loss = torch.stack(list(grids(network, photos, network(photos)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 8 * np.mean(losses[-5:])
    assert network(photos).std().item() > 0.8 * contrast
