from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import perceptual
from perceptual.commands.gallery import shipped_styles
from perceptual_training.artefacts import borders, grid, grids
from perceptual_training.pictures import load_image

PHOTOS = Path(__file__).parents[2] / "docs/photos"


@pytest.fixture(scope="module")
def two_photos():
    return [load_image(PHOTOS / f"{name}.jpg", 384) for name in ("astronaut", "coffee")]


@pytest.mark.parametrize("period", [2, 4])
@pytest.mark.parametrize("direction", [(1,), (2,), (1, 2)])
def test_a_grid_of_two_levels_in_255_stands_out_of_noise(period, direction):
    torch.manual_seed(0)
    noise = 0.4 + 0.01 * torch.rand(3, 128, 128)
    assert grid(noise) < 3
    wave = torch.cos(2 * torch.pi / period * torch.arange(128))
    pattern = wave.view(-1, 1) * wave if len(direction) == 2 else wave.view(-1, 1) if direction == (1,) else wave
    assert grid(noise + 2 / 255 * pattern) > 50


def test_other_textures_are_no_grid():
    rows, columns = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    strokes = 0.5 + 0.2 * torch.cos(2 * torch.pi * (rows + 2 * columns) / 11)
    assert grid(strokes.expand(3, -1, -1)) < 3
    assert grid(torch.full((3, 64, 64), 0.5)) == pytest.approx(1)  # nothing but what 8 bits lose
    assert grid(torch.full((3, 64, 64), 0.5) + 1e-5 * torch.rand(3, 64, 64)) < 1.1  # and less than that is not seen


def test_grids_of_networks_whose_grids_are_known():
    assert all(figure < 3 for figure in grids(lambda x: x).values())
    checks = torch.cos(torch.pi * torch.arange(256)) / 128
    assert all(figure > 50 for figure in grids(lambda x: x + checks[:, None] * checks.sign()).values())


def test_borders_of_networks_whose_borders_are_known(two_photos):
    assert borders(lambda x: 1 - x, two_photos) == {"border": 0, "centre": 0}
    box = torch.ones(3, 1, 9, 9) / 81
    dark_edges = borders(lambda x: F.conv2d(x, box, padding=4, groups=3), two_photos)
    mirrored = borders(lambda x: F.conv2d(F.pad(x, [4] * 4, mode="reflect"), box, groups=3), two_photos)
    assert dark_edges["border"] > 2 * mirrored["border"] > 0 == dark_edges["centre"]
    brightened = borders(lambda x: x - x.mean(), two_photos)  # all that changes is a statistic of the whole
    assert brightened["border"] == pytest.approx(brightened["centre"])


# What was measured, rounded up by a tenth: grids on grey and on gradients, change at the border and in the centre.
BOUNDS = {
    "starry_night": (29, 20.3, 0.40, 0.28),
    "the_scream": (13, 29.6, 0.34, 0.16),
    "great_wave": (14, 15.4, 0.33, 0.11),
    "udnie": (3.8, 12.1, 0.52, 0.19),
    "composition_vii": (10.2, 15.1, 0.49, 0.20),
    "the_muse": (8.6, 23.9, 0.49, 0.19),
    "edtaonisl": (9.1, 19.7, 0.45, 0.20),
    "starry_night_fast": (22.5, 39, 0.46, 0.29),
    "edtaonisl_fast": (1.6, 12.7, 0.47, 0.24),
}


def test_every_style_that_ships_has_bounds():
    assert BOUNDS.keys() == shipped_styles().keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if name == "udnie" else pytest.param(name, marks=pytest.mark.release) for name in BOUNDS]
)
def test_a_style_keeps_within_what_was_measured(name, two_photos):
    """A network that ships in its place must not be worse."""
    file = shipped_styles()[name]
    network = perceptual.load(file, device="cpu", engine="eager")  # the same figures on every processor
    found = (*grids(network).values(), *borders(network, two_photos).values())
    assert all(figure < bound for figure, bound in zip(found, BOUNDS[name], strict=True)), found
