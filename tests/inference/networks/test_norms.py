import pytest
import torch
from torch import nn

from perceptual.inference.networks import StyleNetwork
from perceptual.inference.networks.norms import InstanceNorm


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
