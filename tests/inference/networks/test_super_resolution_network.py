import pytest
import torch
from torch import nn

from perceptual.inference.networks import SuperResolutionNetwork
from perceptual.inference.networks.super_resolution import blended
from perceptual.inference.resampling import resize_bicubic


def super_resolution(scale, preset="default", **changes):
    torch.manual_seed(0)
    config = {**SuperResolutionNetwork.presets[preset], **changes}
    return SuperResolutionNetwork(scale=scale, **config).eval()


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("name", SuperResolutionNetwork.presets)
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (13, 6)])
def test_super_resolution_output_is_as_many_times_larger(name, scale, size):
    network = super_resolution(scale, name, init_features=4)
    with torch.inference_mode():
        out = network(torch.rand(2, 3, *size))
    assert out.shape == (2, 3, scale * size[0], scale * size[1])
    assert out.min() >= 0 and out.max() <= 1


@pytest.mark.parametrize("scale", [4, 8])
def test_super_resolution_layers_are_the_paper_s(scale):
    """The paper's supplementary material, table 2."""
    doublings = {4: 2, 8: 3}[scale]
    table = [(3, 64, 9), *[(64, 64, 3)] * (8 + doublings), (64, 3, 9)]
    network = super_resolution(scale, "paper")
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0]) for c in convolutions] == table
    weights = sum(i * o * k * k for i, o, k in table) + 3
    total = sum(p.numel() for p in network.parameters())
    assert total == weights + 2 * 64 * (9 + doublings)  # a norm's scale and shift
    assert total == {4: 401_155, 8: 438_147}[scale]


@pytest.mark.parametrize("name", ["default", "fast"])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_all_convolutions_work_at_the_input_s_size(name, scale):
    network = super_resolution(scale, name)
    sizes = set()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda module, inputs, output: sizes.add(output.shape[2:]))
    with torch.inference_mode():
        network(torch.rand(1, 3, 11, 14))
    assert sizes == {(11, 14)}


@pytest.mark.parametrize("name", ["default", "fast"])
def test_an_output_pixel_sees_no_further_than_the_reach(name):
    network = super_resolution(2, name, init_features=4, num_residuals=2).double().train()
    nn.init.normal_(network.layers[-2].weight)
    image = torch.rand(1, 3, 40, 40, dtype=torch.float64, requires_grad=True)
    network(image)[0, :, 40, 40].sum().backward()
    rows = image.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    assert 20 - rows.min() == rows.max() - 20 == network.reach


def test_training_of_super_resolution_starts_from_bicubic():
    image = torch.rand(1, 3, 10, 12)
    with torch.inference_mode():
        found = super_resolution(4)(image)
    torch.testing.assert_close(found, resize_bicubic(image, 4).clamp(0, 1))


@pytest.mark.parametrize("scale", [4, 8])
def test_default_super_resolution_has_no_checkerboard_before_training(scale):
    def unevenness(preset):
        network = super_resolution(scale, preset, init_features=8)
        with torch.inference_mode():
            grey = network(torch.full((1, 3, 16, 16), 0.4))
        return grey[..., 28:-28, 28:-28].std(dim=(2, 3)).max()  # at the border, transposed convolutions see zeros

    assert unevenness("default") < 1e-6
    assert unevenness("paper") > 1e-4  # or the above would prove nothing


def test_super_resolution_of_a_batch_is_that_of_its_images():
    batch = torch.rand(3, 3, 9, 11)
    network = super_resolution(4, init_features=8)
    nn.init.normal_(network.layers[-2].weight, std=0.01)
    with torch.inference_mode():
        alone = torch.cat([network(image[None]) for image in batch])
        torch.testing.assert_close(network(batch), alone, atol=1e-5, rtol=0)


def two_networks():
    """A crisp and a faithful network, random."""
    pair = []
    for seed in (1, 2):
        network = super_resolution(2, "default", init_features=4, num_residuals=2)
        torch.manual_seed(seed)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.1)
        pair.append(network.requires_grad_(False))
    return pair


def test_a_blended_network_is_one_of_its_ends_or_the_mean_of_their_weights():
    crisp, faithful = two_networks()
    both = blended(crisp, faithful)
    images = torch.rand(2, 3, 9, 8)
    assert sum(each.numel() for each in both.parameters()) == 2 * sum(each.numel() for each in crisp.parameters())
    assert torch.equal(both(images, torch.tensor([[0.0]])), crisp(images))
    assert torch.equal(both(images, torch.tensor([[1.0]])), faithful(images))
    assert torch.equal(both(images), faithful(images))
    mean = super_resolution(2, "default", init_features=4, num_residuals=2)
    others = faithful.state_dict()
    mean.load_state_dict({name: 0.7 * each + 0.3 * others[name] for name, each in crisp.state_dict().items()})
    expected = mean(images)
    torch.testing.assert_close(both(images, torch.tensor([[0.3]])), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(both.settled(0.3)(images), expected, atol=1e-5, rtol=0)
    assert crisp.settled(0.3) is crisp
    assert (crisp(images) - faithful(images)).abs().mean() > 0.01  # or the above would prove nothing


def test_what_cannot_be_blended():
    with pytest.raises(ValueError, match="only networks of the same layers"):
        blended(super_resolution(2), super_resolution(4))
    for preset in ("paper", "default"):
        changes = {} if preset == "paper" else {"normalization": "batch"}
        with pytest.raises(ValueError, match="only networks of convolutions alone"):
            super_resolution(4, preset, blended=True, **changes)


@pytest.mark.parametrize("scale", [0, 1, 3, 16])
def test_scale_is_2_4_or_8(scale):
    with pytest.raises(ValueError, match=f"scale is {scale}; it is 2, 4 or 8"):
        SuperResolutionNetwork(scale=scale)


def test_norms_whose_statistics_are_of_a_style_are_refused():
    with pytest.raises(ValueError, match="normalization is instance; it is batch or none"):
        SuperResolutionNetwork(scale=4, normalization="instance")
