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
        "adele_bloch_bauer_i": (17.5, 16.5, 0.481, 0.191),
        "akbar_hands_over_his_crown": (14.9, 16.8, 0.543, 0.173),
        "beach_at_saint_clair": (45.7, 23, 0.518, 0.15),
        "book_of_kells_in_principio": (40.1, 23.2, 0.615, 0.171),
        "bridge_over_water_lilies": (29.5, 21, 0.518, 0.15),
        "carceri_prison": (17.8, 26.1, 0.51, 0.149),
        "champs_de_mars_red_tower": (13.9, 13.2, 0.456, 0.182),
        "composition_a_1920": (11.9, 7.05, 0.386, 0.409),
        "composition_vii": (32.2, 13.8, 0.569, 0.189),
        "composition_viii": (10.3, 21.3, 0.465, 0.213),
        "delaunay_metzinger": (27.5, 17.4, 0.444, 0.148),
        "dynamism_of_a_cyclist": (47.4, 16.6, 0.543, 0.171),
        "edtaonisl": (8.57, 15.1, 0.556, 0.184),
        "great_wave": (23.2, 14, 0.454, 0.114),
        "la_calanque": (46.3, 23.2, 0.506, 0.136),
        "lady_with_a_fan": (15.4, 17.1, 0.523, 0.171),
        "little_blue_horse": (30.3, 10.4, 0.454, 0.206),
        "melencolia_i": (10.1, 19.9, 0.51, 0.136),
        "mosaic_with_duck": (33.3, 44.4, 0.546, 0.16),
        "night_view_of_saruwaka_machi": (22, 11.4, 0.458, 0.152),
        "portrait_of_picasso": (29.3, 17.7, 0.566, 0.158),
        "roses_under_the_trees": (68.3, 37.3, 0.598, 0.161),
        "seine_at_la_grande_jatte": (76.7, 26.1, 0.554, 0.139),
        "self_portrait_1887": (45.1, 13.6, 0.507, 0.278),
        "shipwreck": (40.7, 14.4, 0.575, 0.203),
        "starry_night": (41.4, 14.4, 0.614, 0.202),
        "street_berlin": (17.5, 10.8, 0.538, 0.189),
        "suburb_with_washing": (12.6, 12.8, 0.557, 0.184),
        "suprematist_composition": (4.02, 14.1, 0.453, 0.177),
        "tableau_no_2_composition_vii": (53.2, 36.4, 0.56, 0.169),
        "the_muse": (20.1, 15.9, 0.544, 0.197),
        "the_scream": (16.2, 12.6, 0.432, 0.169),
        "the_seasons": (19.2, 12.4, 0.462, 0.148),
        "udnie": (5.36, 14, 0.595, 0.165),
        "wheat_field_with_cypresses": (24.1, 25.4, 0.407, 0.172),
        "willow_bough": (17.5, 24.3, 0.613, 0.159),
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
    found = (*grids(run).values(), *borders(run, two_photos).values())
    assert all(figure < bound for figure, bound in zip(found, BOUNDS[network][style], strict=True)), found
