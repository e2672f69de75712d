import pytest
import torch
from torch import nn

from perceptual.inference.networks import StyleNetwork, SuperResolutionNetwork
from perceptual.inference.tiles import run_in_tiles

CPU = torch.device("cpu")


@pytest.mark.parametrize(("preset", "scale"), [("paper", 4), ("default", 4), ("default", 8)])
def test_tiles_make_the_same_picture(preset, scale):
    config = SuperResolutionNetwork.presets[preset] | {"init_features": 4, "num_residuals": 2}
    network = far_carrying(SuperResolutionNetwork(scale=scale, **config))
    check_tiles(network, torch.rand(2, 3, 37, 44), sides=(64, 17), too_short=network.reach - 6, least=1e-3)


@pytest.mark.parametrize(
    "config", [StyleNetwork.presets["paper"], {"normalization": "none"}, {"normalization": "batch"}], ids=str
)
def test_tiles_of_style_networks_without_instance_norm_make_the_same_picture(config):
    network = far_carrying(StyleNetwork(**config, init_features=4, num_residuals=1))
    check_tiles(network, torch.rand(1, 3, 150, 131), sides=(60, 64), too_short=network.reach - 12, least=1e-4)


def far_carrying(network):
    """The network with weights that carry far, so that a small margin would show."""
    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=0.15)
    return network.eval()


def joined(network, image, side, margin, scale):
    """The result whose tiles are each at their place."""
    result = torch.full((*image.shape[:2], *(scale * each for each in image.shape[2:])), torch.nan)
    for place, outputs in run_in_tiles(network, image, side, margin, scale, CPU):
        result[place] = outputs
    return result


def check_tiles(network, image, sides, too_short, least):
    """Tiles give what the whole image does; with too short a margin, the last of the sides shows a difference."""
    with torch.inference_mode():
        whole = network(image)
        for side in sides:
            tiles = joined(network, image, side, network.reach, network.scale)
            torch.testing.assert_close(tiles, whole, atol=2e-5, rtol=0)
        short = joined(network, image, sides[-1], too_short, network.scale)
    assert (short - whole).abs().max() > least, "the margin plays no part, so the above proves nothing"


def test_no_larger_tile_than_asked_for_is_run():
    seen = []

    def double(tile):
        seen.append(tuple(tile.shape[-2:]))
        return tile.repeat_interleave(2, 2).repeat_interleave(2, 3)

    image = torch.rand(1, 1, 10, 23)
    assert torch.equal(joined(double, image, 8, 3, 2), double(image))
    assert seen[:-1] == [(10, 11), (10, 14), (10, 10), (5, 11), (5, 14), (5, 10)]
