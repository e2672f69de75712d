from pathlib import Path

import numpy as np
import pytest
import torch

from perceptual_training.machine import bfloat16
from perceptual_training.pictures import load_image
from perceptual_training.weaves import weave

PAINTINGS = Path(__file__).parents[2] / "training/paintings"


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def strokes():
    """Part of a painting, 1×3×128×128."""
    return load_image(PAINTINGS / "starry_night.jpg", 256)[..., :128, :128]


def hatching(period, angle, side=128):
    """Lines of a period in pixels, at an angle in degrees, of a standard deviation of 1."""
    down, right = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    places = torch.arange(side) * 2 * torch.pi / period
    return 2**0.5 * torch.cos(down * places[:, None] + right * places)


def by_fft(image):
    """The same by numpy, one region and one frequency after the other: a reference."""
    grey = 255 * np.tensordot([0.299, 0.587, 0.114], image.double().numpy(), axes=1)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(32) / 32)
    rows, columns = ((side - 32) // 16 + 1 for side in grey.shape)
    spectra = np.empty((rows, columns, 32, 32))
    for row in range(rows):
        for column in range(columns):
            window = grey[16 * row : 16 * row + 32, 16 * column : 16 * column + 32]
            spectra[row, column] = np.abs(np.fft.fft2((window - window.mean()) * np.outer(hann, hann))) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(32), np.fft.fftfreq(32)))
    excess = []
    for row in range(0, rows - 4, 2):
        for column in range(0, columns - 4, 2):
            energy = spectra[row : row + 5, column : column + 5].mean(axis=(0, 1)) + 32 * 32 * (3 / 8) ** 2 / 3
            for y, x in np.argwhere(frequency > 1 / 7):
                near = {(a, b): ((y + a) % 32, (x + b) % 32) for a in range(-4, 5) for b in range(-4, 5)}
                own = np.mean([energy[place] for step, place in near.items() if max(map(abs, step)) <= 1])
                around = [place for step, place in near.items() if max(map(abs, step)) > 2]
                around = np.mean([np.log(energy[place]) for place in around if frequency[place] > 1 / 12])
                excess.append(max(0, np.log(own) - around - 1))
    return np.mean(excess)


def test_a_weave_is_that_of_the_spectra(strokes):
    images = 0.2 * torch.cat([strokes, strokes.flip(2)])[..., :112] + 0.02 * hatching(3, 30)[:, :112]
    expected = np.mean([by_fft(image) for image in images])
    assert weave(images).item() == pytest.approx(expected, rel=1e-4) and expected > 0.1


@pytest.mark.parametrize("period", [2.2, 3, 4, 5.5])
@pytest.mark.parametrize("angle", [0, 30, 90, 120])
def test_a_faint_hatching_counts_and_strong_strokes_do_not(strokes, period, angle):
    assert all(weave(strength * strokes) < 0.01 for strength in (0.1, 0.5, 1))
    assert weave(0.2 * strokes + 5 / 255 * hatching(period, angle)) > 0.04


def test_strength_does_not_matter(strokes):
    image = 0.5 * strokes + 0.03 * hatching(3, 30)
    assert weave(0.5 * image) == pytest.approx(weave(image).item(), rel=0.02)


def test_what_cannot_be_seen_is_no_weave():
    assert weave(0.5 + torch.randn(2, 3, 96, 96) / 255) == 0
    assert weave(0.5 + 0.1 / 255 * hatching(3, 30, 96).expand(1, 3, -1, -1)) == 0
    assert weave(torch.full((1, 3, 32, 40), 0.5)) == 0


@pytest.mark.parametrize("name", ["starry_night", "great_wave", "composition_vii", "la_calanque"])
def test_paintings_of_strokes_have_none(name):
    assert weave(load_image(PAINTINGS / f"{name}.jpg", 256)) < 0.01


def test_its_spectra_are_of_float32_in_a_training_in_bfloat16(strokes):
    pictures = (0.2 * strokes + 0.02 * hatching(3, 30)).bfloat16()
    with bfloat16(torch.device("cpu"), enabled=True):
        found = weave(pictures)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, weave(pictures.float()))


def test_its_gradient_removes_it_and_keeps_the_strokes(strokes):
    image = (0.2 * strokes + 0.02 * hatching(3, 30)).requires_grad_()
    start, contrast = weave(image).item(), image.std().item()
    optimizer = torch.optim.Adam([image], 2e-3)
    for _ in range(30):
        optimizer.zero_grad()
        weave(image).backward()
        optimizer.step()
    assert start > 0.1 > 10 * weave(image)
    assert image.std() > 0.8 * contrast
