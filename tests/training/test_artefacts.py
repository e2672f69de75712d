from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import perceptual
from perceptual.commands.gallery import shipped_styles
from perceptual.inference.metadata import styles_in
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
    "styles": {
        "adele_bloch_bauer_i": (18.4, 19, 0.44, 0.19),
        "akbar_hands_over_his_crown": (11.2, 19.2, 0.498, 0.18),
        "beach_at_saint_clair": (40.7, 16.8, 0.467, 0.184),
        "book_of_kells_in_principio": (29.4, 17.9, 0.617, 0.171),
        "bridge_over_water_lilies": (30.9, 18.4, 0.51, 0.138),
        "carceri_prison": (22.8, 17, 0.473, 0.154),
        "champs_de_mars_red_tower": (15.4, 11.6, 0.454, 0.237),
        "composition_a_1920": (10.5, 8.54, 0.345, 0.283),
        "composition_vii": (21.7, 14.7, 0.508, 0.198),
        "composition_viii": (6.13, 14.9, 0.484, 0.182),
        "delaunay_metzinger": (29, 19.3, 0.45, 0.114),
        "dynamism_of_a_cyclist": (31.3, 12.3, 0.493, 0.166),
        "edtaonisl": (4.94, 10.8, 0.49, 0.16),
        "great_wave": (16.5, 11.5, 0.418, 0.126),
        "la_calanque": (39.9, 21.1, 0.455, 0.122),
        "lady_with_a_fan": (15.4, 15, 0.53, 0.166),
        "little_blue_horse": (22.7, 11.4, 0.426, 0.198),
        "melencolia_i": (11.6, 15.5, 0.492, 0.147),
        "mosaic_with_duck": (24.1, 39.6, 0.57, 0.142),
        "night_view_of_saruwaka_machi": (23.2, 15.6, 0.419, 0.156),
        "portrait_of_picasso": (23.4, 16.6, 0.5, 0.149),
        "roses_under_the_trees": (50.4, 36, 0.594, 0.151),
        "seine_at_la_grande_jatte": (69.9, 28.8, 0.527, 0.217),
        "self_portrait_1887": (38.2, 11.1, 0.496, 0.272),
        "shipwreck": (38.6, 15.3, 0.468, 0.218),
        "starry_night": (31.1, 20.4, 0.498, 0.232),
        "street_berlin": (13.4, 9.63, 0.541, 0.167),
        "suburb_with_washing": (13.7, 13.7, 0.501, 0.157),
        "suprematist_composition": (3.33, 11.6, 0.472, 0.181),
        "tableau_no_2_composition_vii": (28.9, 25.5, 0.552, 0.164),
        "the_muse": (11.9, 15.7, 0.522, 0.185),
        "the_scream": (12.1, 15.8, 0.404, 0.136),
        "the_seasons": (15.1, 21.2, 0.444, 0.136),
        "udnie": (4.27, 14.5, 0.501, 0.153),
        "wheat_field_with_cypresses": (23.9, 15.8, 0.392, 0.256),
        "willow_bough": (19.9, 12.8, 0.644, 0.171),
    },
    "edtaonisl_fast": {"": (1.6, 12.7, 0.47, 0.24)},
    "starry_night_fast": {"": (22.5, 39, 0.46, 0.29)},
}
EACH = [(network, style) for network, styles in BOUNDS.items() for style in styles]


def test_every_style_that_ships_has_bounds():
    named = {name: {each["name"] for each in styles_in(file)} for name, file in shipped_styles().items()}
    assert {name: {style or name for style in styles} for name, styles in BOUNDS.items()} == named


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "style"),
    [each if each[1] == "udnie" else pytest.param(*each, marks=pytest.mark.release) for each in EACH],
)
def test_a_style_keeps_within_what_was_measured(network, style, two_photos):
    """A network that ships in its place must not be worse."""
    predictor = perceptual.load(network, device="cpu", engine="eager")  # the same figures on every processor
    run = partial(predictor, style=style or None)
    found = (*grids(run).values(), *borders(partial(run, grain=0.0), two_photos).values())
    assert all(figure < bound for figure, bound in zip(found, BOUNDS[network][style], strict=True)), found
