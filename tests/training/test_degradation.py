import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matlab import imresize
from scipy.ndimage import gaussian_filter

from perceptual_training import degradation, parallel
from perceptual_training.degradation import blur_each, degrade, draw


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("form", ["paper", "bicubic"])
def test_against_scipy_and_imresize(scale, form):
    target = np.random.default_rng(0).random((2, 3, 32, 48))
    found = degrade(torch.from_numpy(target), scale, form)
    assert found.shape == (2, 3, 32 // scale, 48 // scale)
    for image, reduced in zip(target.reshape(-1, 32, 48), found.reshape(-1, 32 // scale, 48 // scale), strict=True):
        blurred = gaussian_filter(image, 1.0, mode="mirror") if form == "paper" else image
        expected = imresize(blurred, 32 // scale, 48 // scale).clip(0, 1)
        assert np.abs(reduced.numpy() - expected).max() <= 0.5 / 255 + 2e-4  # scipy cuts its Gaussian off elsewhere


@pytest.mark.parametrize("form", ["mixed", "paper", "bicubic"])
def test_inputs_are_such_as_a_file_can_hold(form):
    found = degrade((torch.rand(8, 3, 32, 32) > 0.5).float(), 4, form) * 255  # bicubic overshoots
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


def test_each_image_is_blurred_by_its_own_sigma():
    images = torch.rand(3, 3, 20, 30)
    found = blur_each(images, torch.tensor([0.0, 0.6, 1.2]))
    assert torch.equal(found[0], images[0])
    for image, blurred, sigma in zip(images[1:], found[1:], (0.6, 1.2), strict=True):
        expected = gaussian_filter(image.double().numpy(), (0, sigma, sigma), mode="reflect", radius=4)
        assert np.abs(blurred.numpy() - expected).max() < 1e-5


def test_mixed_reductions_are_those_of_photos_met_in_practice(monkeypatch):
    # Each photo's reduction is found again among all those that can be drawn without a blur or a code.
    monkeypatch.setattr(degradation, "STRONGEST", 0.0)
    monkeypatch.setattr(degradation, "COMPRESSED", 0.0)
    torch.manual_seed(0)
    photos = torch.rand(64, 3, 16, 16)
    found = degrade(photos, 4, "mixed")
    forms = {
        "bicubic": degrade(photos, 4, "bicubic"),
        "bilinear": F.interpolate(photos, (4, 4), mode="bilinear", antialias=True),
        "area": photos.unflatten(3, (4, 4)).unflatten(2, (4, 4)).mean(dim=(3, 5)),
    }
    nearest = [min(forms, key=lambda name: (forms[name][i] - found[i]).abs().max()) for i in range(64)]
    for i, name in enumerate(nearest):
        assert (forms[name][i] - found[i]).abs().max() <= 0.51 / 255
    counts = {name: nearest.count(name) for name in forms}
    assert counts["bicubic"] > 20 and counts["bilinear"] > 8 and counts["area"] > 8


def test_a_third_of_the_mixed_reductions_went_through_a_jpeg_file(monkeypatch):
    monkeypatch.setattr(degradation, "STRONGEST", 0.0)
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 32).expand(120, 3, 32, 32)  # any filter reduces it alike, but for the border
    found = degrade(ramp, 2, "mixed")[..., 4:-4]
    expected = degrade(ramp, 2, "bicubic")[..., 4:-4]
    changed = ((found - expected).abs().amax(dim=(1, 2, 3)) > 1.5 / 255).sum()
    assert 20 <= changed <= 60


def test_mixed_reductions_follow_from_the_seed():
    photos = torch.rand(8, 3, 16, 16)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(degrade(photos, 4, "mixed"))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_the_same_draws_reduce_in_the_same_way():
    torch.manual_seed(0)
    photos, draws = torch.rand(12, 3, 16, 16), draw(12)
    assert torch.equal(degrade(photos, 4, "mixed", draws), degrade(photos, 4, "mixed", draws))
    assert len({*draws.filters.tolist()}) == 4 and None in draws.qualities and len({*draws.qualities}) > 2


def test_each_process_has_its_part_of_the_draws_for_the_batch(monkeypatch):
    torch.manual_seed(0)
    whole, after = draw(12), torch.get_rng_state()
    monkeypatch.setattr(parallel, "world_size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        torch.manual_seed(0)
        for mine, all_of_them in zip(draw(4), whole, strict=True):
            assert list(mine) == list(all_of_them[4 * rank : 4 * rank + 4])
        assert torch.equal(torch.get_rng_state(), after)
