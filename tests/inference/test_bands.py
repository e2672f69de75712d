import pytest
import torch
from skimage.data import astronaut
from torch import nn

from perceptual import load
from perceptual.inference.bands import Moments, run_in_bands
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.networks.norms import neutral_style


def network_of(preset, **changes):
    """One whose weights carry far and whose norms matter, so that a wrong statistic or margin would show."""
    torch.manual_seed(0)
    network = StyleNetwork(**{**StyleNetwork.presets[preset], "init_features": 4, "num_residuals": 2, **changes})
    if network.style_numbers:
        nn.init.uniform_(network.styles, 0.5, 1.5)
        network.styles.data -= (neutral_style(network) == 0).float()  # shifts from -0.5 to 0.5
    return network.eval().requires_grad_(False)


def in_bands(network, image, pixels, style=None, **options):
    style = network.styles[0, :1] if style is None else style
    result = torch.full_like(image, torch.nan)
    for place, outputs in run_in_bands(network, image, style, pixels, torch.device("cpu"), **options):
        result[place] = outputs
    return result


IMPORTED = {"output": "linear", "upsampling": "nearest", "multiple": 1}


@pytest.mark.parametrize("changes", [{}, {"in_channels": 1}, {"output": "tanh"}, IMPORTED])
@pytest.mark.parametrize("size", [(160, 48), (101, 70), (33, 203), (1, 600)])
def test_bands_make_the_same_picture(changes, size):
    network = network_of("default", **changes)
    image = torch.rand(1, 3, *size)
    image[..., : size[0] // 3, :] *= 0.1  # bands of very different statistics
    with torch.inference_mode():
        found, whole = in_bands(network, image, 16 * size[1]), network(image)
    assert (found - whole).abs().max() < 2e-3  # the features are kept in half precision
    assert (found - whole).abs().mean() < 2e-4


def test_bands_are_of_the_style_asked_for():
    network = network_of("default", styles=3)
    image, style = torch.rand(1, 3, 90, 50), network.style([0.2, 0, 0.8])
    with torch.inference_mode():
        found, whole = in_bands(network, image, 16 * 50, style), network(image, style)
        assert (whole - network(image, network.styles[0])).abs().mean() > 0.01
    assert (found - whole).abs().max() < 2e-3


@pytest.mark.slow
def test_bands_in_bfloat16_make_the_same_picture():
    network = load("styles_fast", "cpu", engine="eager").network
    image = torch.from_numpy(astronaut()).movedim(2, 0)[None, :, 150:310, 150:278] / 255
    style = network.styles[0]
    with torch.inference_mode():
        found, whole = in_bands(network, image, 40 * 128, style, bfloat16=True), network(image, style)
    assert found.dtype == torch.float32
    assert (found - whole).abs().mean() * 255 < 1  # as of the whole image in bfloat16
    borders = (found - whole).abs().mean((0, 1, 3))[39:-1:40] * 255
    assert borders.max() < 2


def test_bands_of_bytes_are_floats_and_in_order():
    image = torch.randint(0, 256, (1, 3, 50, 40), dtype=torch.uint8)
    network = network_of("default")
    parts, same = (
        list(run_in_bands(network, each, network.styles[0], 16 * 40, torch.device("cpu")))
        for each in (image, image.float() / 255)
    )
    assert [(rows.start, rows.stop) for (_, _, rows, _), _ in parts] == [(0, 16), (16, 32), (32, 48), (48, 50)]
    assert all(part.outputs.shape == image[part.place].shape for part in parts)
    assert all(
        torch.equal(of_bytes.outputs, of_floats.outputs) for of_bytes, of_floats in zip(parts, same, strict=True)
    )


def test_moments_are_those_of_the_whole():
    x = torch.randn(1, 3, 50, 20) * torch.tensor([1, 10, 0.1]).view(3, 1, 1) + torch.tensor([0, 1000, -5]).view(3, 1, 1)
    moments = Moments()
    for part in x.split([7, 1, 30, 12], dim=2):
        moments.add(part)
    variance, mean = torch.var_mean(x.double(), dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(moments.mean, mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(moments.variance, variance, rtol=1e-4, atol=0)
