import pytest
import torch

from perceptual.inference.networks import StyleNetwork
from perceptual_training.peaks import LIMIT, REGIONS, PeakLoss, excess


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_one_place_where_all_channels_peak_is_measured_and_lowered():
    x = noise(1, 16, 48, 48)
    assert excess(x) == 0
    x[..., 10:12, 20:22] = 30.0
    x.requires_grad_()
    deviation, mean = torch.std_mean(x.detach(), (2, 3), correction=0)
    energy = ((30 - mean) / deviation).square().mean().item()
    loss = excess(x)
    assert loss.item() == pytest.approx((energy - LIMIT) ** 2 / REGIONS**2, rel=1e-3)  # one region of 24 × 24
    loss.backward()
    assert (x.grad[..., 10:12, 20:22] > 0).all()  # descent lowers the place


def test_edges_and_single_channels_cost_nothing():
    edge, channel = noise(2, 1, 16, 48, 48)
    edge[..., 24] += 4.0
    channel[:, 3, 10:12, 20:22] = 9.0
    assert excess(edge) == 0 and excess(channel) == 0


def test_every_norm_of_a_network_is_measured_in_training_alone():
    torch.manual_seed(0)
    network = StyleNetwork(init_features=4, num_residuals=1)
    peaks = PeakLoss(network, 3.0)
    photo = torch.zeros(1, 3, 96, 96)
    photo[..., 40:48, 40:48] = 1.0
    network.eval()(photo)
    assert peaks() == {}
    network.train()(photo)
    assert len(peaks.measured) == 7
    expected = 3 * sum(each.item() for each in peaks.measured)
    assert peaks()["peaks"].item() == pytest.approx(expected, rel=1e-5) and expected > 0
    assert peaks() == {}  # each picture counts once


def test_without_a_weight_or_instance_norms_there_is_nothing_to_measure():
    for normalization, weight in (("instance", 0.0), ("none", 1.0)):
        network = StyleNetwork(init_features=4, normalization=normalization)
        peaks = PeakLoss(network, weight)
        network.train()(torch.rand(1, 3, 32, 32))
        assert peaks() == {}


@pytest.mark.trains
def test_training_removes_a_peak():
    """A network that makes one, trained by this loss alone."""
    torch.manual_seed(0)
    network = StyleNetwork(init_features=4, num_residuals=1)
    peaks = PeakLoss(network, 1.0)
    photo = torch.rand(1, 3, 96, 96) / 4
    photo[..., 40:48, 40:48] = 1.0
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        network.train()(photo)
        loss = peaks()["peaks"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3
