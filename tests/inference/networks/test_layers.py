import pytest
import torch
from torch import nn

from perceptual.inference.networks.layers import UpsampleBlock
from perceptual.inference.networks.padding import pad_to_multiple


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


def test_padding_repeats_the_edge():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert pad_to_multiple(x, 4, 1).tolist() == [[[[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]]]
    assert pad_to_multiple(torch.rand(1, 3, 8, 8), 4, 1).shape == (1, 3, 8, 8)
