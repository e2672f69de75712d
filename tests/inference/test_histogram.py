import numpy as np
import pytest
import torch
from skimage.exposure import match_histograms
from training_fixtures import smooth_picture

from perceptual.inference import histogram


def to_tensor(pixels):
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def noise(rng, height, width, low=0, high=256):
    return rng.integers(low, high, (height, width, 3), dtype=np.uint8)


def pairs():
    rng = np.random.default_rng(0)
    smooth, other = smooth_picture(rng, (80, 60)), smooth_picture(rng, (31, 45))
    constant = np.full((5, 4, 3), (7, 128, 255), np.uint8)
    mixed = noise(rng, 20, 30)
    mixed[..., 1] = 99  # one constant channel
    return {
        "noise": (noise(rng, 40, 50), noise(rng, 17, 23)),
        "few levels": (noise(rng, 40, 50, 100, 104), noise(rng, 30, 30, 10, 240)),
        "to few levels": (noise(rng, 40, 50), noise(rng, 30, 30, 100, 104)),
        "pictures": (smooth, other),
        "a smaller copy": (smooth, smooth[::4, ::4]),
        "a darker copy": (smooth, (smooth * 0.6).astype(np.uint8)),
        "constant": (constant, other),
        "to constant": (smooth, constant),
        "both constant": (constant, 255 - constant),
        "constant channel": (mixed, smooth),
        "single pixel": (noise(rng, 1, 1), smooth),
        "to single pixel": (smooth, noise(rng, 1, 1)),
        "black and white": (255 * noise(rng, 9, 9, 0, 2), smooth),
    }


PAIRS = pairs()


@pytest.mark.parametrize("name", PAIRS)
def test_agrees_with_scikit_image(name):
    image, reference = PAIRS[name]
    expected = match_histograms(image.astype(float), reference.astype(float), channel_axis=-1)
    found = histogram.match(to_tensor(image), to_tensor(reference))[0].permute(1, 2, 0).numpy() * 255
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("match", [histogram.match, histogram.match_low_frequencies])
def test_bytes_are_matched_as_floats_are_but_rounded(match):
    image, reference = (torch.from_numpy(each.copy()).permute(2, 0, 1)[None] for each in PAIRS["pictures"])
    reference = reference[..., : image.shape[2] // 3, : image.shape[3] // 3]  # means of 9 are never half a level
    image = image[..., : 3 * reference.shape[2], : 3 * reference.shape[3]]
    found, floats = match(image, reference), match(image / 255, reference / 255)
    assert found.dtype == torch.uint8
    torch.testing.assert_close(found.float(), floats * 255, atol=0.501, rtol=0)


def test_every_image_of_a_batch_has_its_own_reference():
    rng = np.random.default_rng(1)
    images = torch.cat([to_tensor(noise(rng, 12, 9)) for _ in range(3)])
    references = torch.cat([to_tensor(smooth_picture(rng, (7, 8))) for _ in range(3)])
    alone = [histogram.match(a[None], b[None]) for a, b in zip(images, references, strict=True)]
    assert torch.equal(histogram.match(images, references), torch.cat(alone))


@pytest.mark.parametrize("match", [histogram.match, histogram.match_low_frequencies])
def test_pixels_worked_on_in_parts_are_those_worked_on_at_once(match, monkeypatch):
    images, references = torch.rand(2, 3, 40, 30), torch.rand(2, 3, 20, 15) ** 2
    at_once = match(images, references)
    monkeypatch.setattr(histogram, "CHUNK", 197)
    torch.testing.assert_close(match(images, references), at_once, atol=1e-6, rtol=0)


def test_low_frequencies_are_enlarged_as_by_pytorch():
    images, references = torch.rand(2, 3, 40, 32), torch.rand(2, 3, 10, 8) ** 2
    low = torch.nn.functional.avg_pool2d(images, 4)
    shift = torch.nn.functional.interpolate(histogram.match(low, references) - low, (40, 32), mode="bilinear")
    found = histogram.match_low_frequencies(images, references)
    torch.testing.assert_close(found, (images + shift).clamp(0, 1), atol=1e-5, rtol=0)


def test_an_image_matched_to_itself_stays():
    image = to_tensor(smooth_picture(np.random.default_rng(2), (30, 40)))
    torch.testing.assert_close(histogram.match(image, image), image, atol=1e-6, rtol=0)


def test_values_between_the_levels_keep_their_order_and_place():
    image = torch.linspace(0.2, 0.7, 5000).view(1, 1, 50, 100)  # as a network's output: no two values alike
    matched = histogram.match(image, image * 0.5 + 0.3).flatten()
    assert (matched.diff() >= 0).all()
    torch.testing.assert_close(matched, image.flatten() * 0.5 + 0.3, atol=1.5 / 255, rtol=0)
    assert matched.unique().numel() > 1000  # not rounded to levels


def test_low_frequencies_alone_shift_colours_and_keep_detail():
    torch.manual_seed(0)
    detail = 0.1 * (torch.arange(64) % 2).view(1, 1, 1, 64).expand(1, 3, 64, 64)  # stripes one pixel wide
    image = 0.3 + 0.3 * torch.linspace(0, 1, 64).view(1, 1, 64, 1) + detail
    reference = torch.nn.functional.avg_pool2d(image, 4) * torch.tensor([1.0, 0.8, 1.2]).view(1, 3, 1, 1)
    matched = histogram.match_low_frequencies(image, reference)
    torch.testing.assert_close(matched.mean((2, 3)), reference.mean((2, 3)), atol=5e-3, rtol=0)
    torch.testing.assert_close(matched.diff(dim=3), image.diff(dim=3), atol=2e-2, rtol=0)
    plain = histogram.match(image, reference)
    assert (plain.diff(dim=3) - image.diff(dim=3)).abs().max() > 2e-2  # which plain matching does not
    assert matched.min() >= 0 and matched.max() <= 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_agrees_with_cpu():
    image, reference = map(to_tensor, PAIRS["pictures"])
    found = histogram.match(image.cuda(), reference.cuda()).cpu()
    torch.testing.assert_close(found, histogram.match(image, reference), atol=1e-5, rtol=0)
