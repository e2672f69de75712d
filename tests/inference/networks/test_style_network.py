import pytest
import torch
from torch import nn

from perceptual.inference.networks import StyleNetwork
from perceptual.inference.networks.base import luma

# The paper's supplementary material, table 1: inputs, outputs and kernel of every convolution.
PAPER = [(3, 32, 9), (32, 64, 3), (64, 128, 3), *[(128, 128, 3)] * 10, (128, 64, 3), (64, 32, 3), (32, 3, 9)]


@pytest.fixture(params=StyleNetwork.presets)
def preset(request):
    torch.manual_seed(0)
    return StyleNetwork(**StyleNetwork.presets[request.param]).eval()


@pytest.mark.parametrize("size", [(1, 1), (3, 70), (47, 33), (64, 64), (101, 50)])
def test_output_has_the_input_s_form(preset, size):
    with torch.inference_mode():
        out = preset(torch.rand(2, 3, *size))
    assert out.shape == (2, 3, *size)
    assert out.min() >= 0 and out.max() <= 1


@pytest.mark.parametrize("name", ["paper", "default"])
def test_layers_are_the_paper_s(name):
    network = StyleNetwork(**StyleNetwork.presets[name])
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0]) for c in convolutions] == PAPER
    norms = sum(2 * outputs for _, outputs, _ in PAPER[:-1])  # scale and shift after every convolution but the last
    weights = sum(i * o * k * k for i, o, k in PAPER) + 3  # the last convolution alone has a bias
    assert sum(p.numel() for p in network.parameters()) == weights + norms == 1_677_635


def test_the_paper_s_preset_undoes_what_is_changed():
    x = torch.tensor([-1.0, 0, 1]).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    paper, default = (StyleNetwork(**StyleNetwork.presets[name]) for name in ("paper", "default"))
    assert [sum(isinstance(each, nn.ConvTranspose2d) for each in net.modules()) for net in (paper, default)] == [2, 0]
    for network, leak in ((paper, 0), (default, 1 / 20)):
        expected = (x.tanh() + leak * x + 1) / 2
        torch.testing.assert_close(network.train().complete(x), expected)
        torch.testing.assert_close(network.eval().complete(x), expected.clamp(0, 1))


def test_paper_preset_uses_its_forty_pixel_border_up():
    network = StyleNetwork(**StyleNetwork.presets["paper"])
    assert network.border == 40
    seen = []
    network.encoder.register_forward_hook(lambda module, args, out: seen.append(args[0].shape))
    network.decoder.register_forward_hook(lambda module, args, out: seen.append(out.shape))
    network(torch.rand(1, 3, 256, 256))
    assert seen == [(1, 3, 336, 336), (1, 3, 256, 256)]


def many_styles():
    torch.manual_seed(0)
    network = StyleNetwork(init_features=4, num_residuals=1, styles=3, sizes=2).eval().requires_grad_(False)
    nn.init.uniform_(network.styles, 0.2, 2)
    return network


def test_each_image_of_a_batch_has_its_own_style():
    network = many_styles()
    batch, styles = torch.rand(3, 3, 32, 40), network.styles[:, 0]
    alone = torch.cat([network(image[None], style[None]) for image, style in zip(batch, styles, strict=True)])
    torch.testing.assert_close(network(batch, styles), alone, atol=1e-5, rtol=0)
    assert (network(batch, styles) - network(batch, styles[:1])).abs().mean((1, 2, 3))[1:].min() > 0.01


def test_a_mixture_is_a_mean_of_styles_and_sizes():
    network = many_styles()
    assert torch.equal(network.style([0, 1, 0]), network.styles[1, :1])
    assert torch.equal(network.style([0, 1, 0], stroke=1), network.styles[1, 1:])
    expected = 0.5 * network.styles[0] + 0.5 * network.styles[2]
    torch.testing.assert_close(network.style([0.5, 0, 0.5], stroke=0.25)[0], 0.75 * expected[0] + 0.25 * expected[1])


def test_a_style_is_3200_numbers_and_must_be_named_among_several():
    assert StyleNetwork().style_numbers == 3200
    with pytest.raises(ValueError, match="say which of 3 styles"):
        many_styles()(torch.rand(1, 3, 32, 32))


def test_luma_network_ignores_colour():
    network = StyleNetwork(in_channels=1, init_features=4, num_residuals=1).eval()
    colour = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(network(colour), network(luma(colour).expand(1, 3, 32, 32)), atol=1e-4, rtol=0)


def test_luma_of_white_and_primaries():
    rgb = torch.eye(3).view(3, 3, 1, 1)
    assert luma(rgb).flatten().tolist() == pytest.approx([0.299, 0.587, 0.114])


def test_in_channels_is_checked():
    with pytest.raises(ValueError, match="padding border goes with normalization batch or none"):
        StyleNetwork(padding="border")
    with pytest.raises(ValueError, match="in_channels is 2"):
        StyleNetwork(in_channels=2)
