import pytest
import torch
from torch import nn

from perceptual.inference.networks import (
    InstanceNorm,
    StyleNetwork,
    SuperResolutionNetwork,
    UpsampleBlock,
    luma,
    pad_to_multiple,
)
from perceptual.inference.resampling import resize_bicubic

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


def test_instance_norm_makes_images_of_a_batch_independent():
    network = StyleNetwork(init_features=4, num_residuals=1).eval()
    batch = torch.rand(3, 3, 32, 40)
    with torch.inference_mode():
        alone = torch.cat([network(image[None]) for image in batch])
        torch.testing.assert_close(network(batch), alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("count", [1, 3])
def test_instance_norm_is_torch_s_with_a_scale_and_shift_for_each_image(count, layout):
    norm = InstanceNorm(4)
    norm.place = slice(2, 10)
    x, style = torch.randn(count, 4, 9, 7).contiguous(memory_format=layout), torch.randn(count, 12)
    scale, shift = style[:, 2:6, None, None], style[:, 6:10, None, None]
    torch.testing.assert_close(norm(x, style), nn.InstanceNorm2d(4)(x) * scale + shift, atol=1e-5, rtol=0)


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


def test_in_channels_is_checked():
    with pytest.raises(ValueError, match="padding border goes with normalization batch or none"):
        StyleNetwork(padding="border")
    with pytest.raises(ValueError, match="in_channels is 2"):
        StyleNetwork(in_channels=2)


# ---- Super-resolution


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


# ---- Parts


@pytest.mark.parametrize("size", [(1, 1), (5, 8)])
def test_a_resize_convolution_is_a_resize_and_a_convolution(size):
    torch.manual_seed(0)
    block = UpsampleBlock(3, 5, normalization="none", upsampling="resize").double()
    reference = nn.Conv2d(3, 5, 3).double()
    reference.load_state_dict(block[1].state_dict())
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    edged = nn.functional.pad(x, [1] * 4, mode="replicate")
    enlarged = nn.functional.interpolate(edged, scale_factor=2, mode="bilinear")[..., 1:-1, 1:-1]
    expected = reference(enlarged).relu()
    torch.testing.assert_close(block(x), expected)
    weights = block[1].weight, reference.weight
    found, wanted = (
        torch.autograd.grad(y.square().sum(), w)[0] for y, w in zip((block(x), expected), weights, strict=True)
    )
    torch.testing.assert_close(found, wanted)


def test_a_resize_convolution_makes_no_stairs_of_a_gradient():
    block = nn.Sequential(*list(UpsampleBlock(1, 4, normalization="none", upsampling="resize"))[:2])
    ramp = torch.arange(12.0).expand(1, 1, 12, 12)
    steps = block(ramp).diff(dim=3)[..., 4:-4, 4:-4]
    torch.testing.assert_close(steps, steps[..., :1, :1].expand_as(steps), atol=1e-4, rtol=0)


def test_luma_of_white_and_primaries():
    rgb = torch.eye(3).view(3, 3, 1, 1)
    assert luma(rgb).flatten().tolist() == pytest.approx([0.299, 0.587, 0.114])


def test_padding_repeats_the_edge():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert pad_to_multiple(x, 4, 1).tolist() == [[[[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]]]
    assert pad_to_multiple(torch.rand(1, 3, 8, 8), 4, 1).shape == (1, 3, 8, 8)
