import pytest
import torch
from torch import nn

from perceptual.inference.networks import SuperResolutionNetwork
from perceptual.inference.resampling import resize_bicubic


def super_resolution(scale, preset="default", **changes):
    torch.manual_seed(0)
    config = {**SuperResolutionNetwork.presets[preset], **changes}
    return SuperResolutionNetwork(scale=scale, **config).eval()


@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize("name", SuperResolutionNetwork.presets)
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (13, 6)])
def test_super_resolution_output_is_as_many_times_larger(name, scale, size):
    network = super_resolution(scale, name, init_features=4)
    with torch.inference_mode():
        out = network(torch.rand(2, 3, *size))
    assert out.shape == (2, 3, scale * size[0], scale * size[1])
    assert out.min() >= 0 and out.max() <= 1


@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize("name", ["paper", "default"])
def test_super_resolution_layers_are_the_paper_s(name, scale):
    """The paper's supplementary material, table 2."""
    doublings = {4: 2, 8: 3}[scale]
    table = [(3, 64, 9), *[(64, 64, 3)] * (8 + doublings), (64, 3, 9)]
    network = super_resolution(scale, name)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0]) for c in convolutions] == table
    weights = sum(i * o * k * k for i, o, k in table) + 3
    per_channel = 2 if name == "paper" else 1  # a norm's scale and shift, or the convolution's bias
    total = sum(p.numel() for p in network.parameters())
    assert total == weights + per_channel * 64 * (9 + doublings)
    assert name != "paper" or total == {4: 401_155, 8: 438_147}[scale]


def test_training_of_super_resolution_starts_from_bicubic():
    image = torch.rand(1, 3, 10, 12)
    with torch.inference_mode():
        found = super_resolution(4)(image)
    torch.testing.assert_close(found, resize_bicubic(image, 4).clamp(0, 1))


@pytest.mark.parametrize("scale", [4, 8])
def test_default_super_resolution_has_no_checkerboard_even_before_training(scale):
    def unevenness(preset):
        network = super_resolution(scale, preset, init_features=8)
        nn.init.normal_(network.layers[-1].weight, std=0.01)
        with torch.inference_mode():
            grey = network(torch.full((1, 3, 16, 16), 0.4))
        return grey[..., 28:-28, 28:-28].std(dim=(2, 3)).max()  # at the border, transposed convolutions see zeros

    assert unevenness("default") < 1e-6
    assert unevenness("paper") > 1e-4  # or the above would prove nothing


def test_super_resolution_of_a_batch_is_that_of_its_images():
    batch = torch.rand(3, 3, 9, 11)
    network = super_resolution(4, init_features=8)
    nn.init.normal_(network.layers[-1].weight, std=0.01)
    with torch.inference_mode():
        alone = torch.cat([network(image[None]) for image in batch])
        torch.testing.assert_close(network(batch), alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [0, 2, 3, 16])
def test_scale_is_4_or_8(scale):
    with pytest.raises(ValueError, match=f"scale is {scale}; it is 4 or 8"):
        SuperResolutionNetwork(scale=scale)
