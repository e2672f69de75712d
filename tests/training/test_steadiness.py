import pytest
import torch

from perceptual_training import parallel
from perceptual_training.steadiness import NOISE, SteadinessLoss, noise_for


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def photos():
    return torch.rand(2, 3, 64, 64)


def test_a_network_that_keeps_its_input_changes_by_the_noise_alone():
    inputs = photos()
    loss = SteadinessLoss(2.0, 4, NOISE)(lambda x: x, inputs, inputs)
    assert loss["steadiness"].item() == pytest.approx(2 * (255 * NOISE) ** 2, rel=0.05)


def test_a_picture_that_does_not_depend_on_the_photo_is_steady():
    loss = SteadinessLoss(2.0, 4, NOISE)(torch.zeros_like, photos(), torch.zeros(2, 3, 64, 64))
    assert loss["steadiness"] == 0


def test_a_pattern_that_stays_where_it_is_while_the_photo_moves_is_measured():
    """Stripes of 4 px: a shift by 1 to 3 px changes half or all of them."""

    def stripes(x):
        return (torch.arange(x.shape[-1]) // 2 % 2).float().expand_as(x)

    found = [SteadinessLoss(1.0, 4)(stripes, photos(), stripes(photos()))["steadiness"].item() for _ in range(40)]
    assert {round(each / 255**2, 2) for each in found} == {0.0, 0.5, 1.0}


def test_it_lowers_the_change_through_both_pictures():
    inputs = photos()
    gain = torch.ones((), requires_grad=True)
    (SteadinessLoss(1.0, 4, NOISE)(lambda x: gain * x, inputs, gain * inputs)["steadiness"]).backward()
    assert gain.grad.item() == pytest.approx(2 * (255 * NOISE) ** 2, rel=0.05)  # of gain² · noise²


def test_the_smallest_crops_have_pixels_to_compare():
    inputs = torch.rand(1, 3, 32, 32)
    assert SteadinessLoss(1.0, 8)(lambda x: x, inputs, inputs)["steadiness"] == 0  # not NaN, as the mean of nothing


def test_without_a_weight_the_network_does_not_run_again():
    assert SteadinessLoss(0.0, 4)(None, None, None) == {}


def test_each_process_has_its_part_of_the_noise_for_the_batch(monkeypatch):
    batch, before = photos(), torch.get_rng_state()
    whole, after = noise_for(batch), torch.get_rng_state()
    monkeypatch.setattr(parallel, "world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        torch.set_rng_state(before)
        assert torch.equal(noise_for(batch[:1]), whole[rank : rank + 1])
        assert torch.equal(torch.get_rng_state(), after)
