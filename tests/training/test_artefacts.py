from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import perceptual
from perceptual.inference.metadata import shipped_weights, styles_in
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
        "adele_bloch_bauer_i": (33.8, 46.9, 0.392, 0.17),
        "akbar_hands_over_his_crown": (13.4, 11, 0.434, 0.157),
        "beach_at_saint_clair": (72.9, 77.1, 0.421, 0.152),
        "book_of_kells_in_principio": (16.9, 13.8, 0.578, 0.167),
        "bridge_over_water_lilies": (42.1, 52.8, 0.463, 0.139),
        "carceri_prison": (10.5, 13.3, 0.444, 0.161),
        "champs_de_mars_red_tower": (12.5, 11.1, 0.385, 0.159),
        "composition_a_1920": (7.29, 4.66, 0.304, 0.199),
        "composition_vii": (21.2, 23.7, 0.444, 0.211),
        "composition_viii": (6.73, 2.9, 0.412, 0.174),
        "delaunay_metzinger": (20.6, 21.7, 0.386, 0.11),
        "dynamism_of_a_cyclist": (24.8, 28.5, 0.432, 0.173),
        "edtaonisl": (8.65, 5.72, 0.4, 0.175),
        "great_wave": (18.9, 13.9, 0.381, 0.121),
        "la_calanque": (79.1, 87.9, 0.42, 0.127),
        "lady_with_a_fan": (24, 19.8, 0.49, 0.147),
        "little_blue_horse": (17.6, 17, 0.367, 0.183),
        "melencolia_i": (10.4, 12.1, 0.437, 0.153),
        "mosaic_with_duck": (14.3, 14.9, 0.542, 0.142),
        "night_view_of_saruwaka_machi": (14.5, 26.2, 0.391, 0.141),
        "portrait_of_picasso": (11.3, 13.6, 0.422, 0.148),
        "roses_under_the_trees": (94.4, 101, 0.525, 0.153),
        "seine_at_la_grande_jatte": (104, 141, 0.456, 0.155),
        "self_portrait_1887": (37.6, 51.3, 0.441, 0.256),
        "shipwreck": (24.1, 34.9, 0.413, 0.199),
        "starry_night": (15.4, 22.2, 0.45, 0.237),
        "street_berlin": (4.51, 5.88, 0.477, 0.181),
        "suburb_with_washing": (14.9, 15.4, 0.463, 0.174),
        "suprematist_composition": (5.65, 4.51, 0.428, 0.166),
        "tableau_no_2_composition_vii": (6.03, 5.8, 0.505, 0.159),
        "the_muse": (2.4, 1.9, 0.464, 0.175),
        "the_scream": (11.4, 17.1, 0.319, 0.134),
        "the_seasons": (19.4, 20.5, 0.391, 0.134),
        "udnie": (7.26, 7.57, 0.365, 0.132),
        "wheat_field_with_cypresses": (15.7, 21.7, 0.348, 0.252),
        "willow_bough": (20.4, 21.8, 0.582, 0.173),
    },
    "styles_fast": {
        "adele_bloch_bauer_i": (38.3, 57.7, 0.388, 0.156),
        "akbar_hands_over_his_crown": (26.4, 31.4, 0.433, 0.162),
        "beach_at_saint_clair": (68.4, 70.4, 0.418, 0.177),
        "book_of_kells_in_principio": (11.5, 14.9, 0.592, 0.175),
        "bridge_over_water_lilies": (72.3, 79, 0.464, 0.134),
        "carceri_prison": (25.7, 28.5, 0.447, 0.199),
        "champs_de_mars_red_tower": (11.8, 13.5, 0.376, 0.192),
        "composition_a_1920": (3.25, 4.56, 0.286, 0.176),
        "composition_vii": (10, 6.45, 0.429, 0.181),
        "composition_viii": (5.34, 5.82, 0.384, 0.165),
        "delaunay_metzinger": (23.5, 24.9, 0.378, 0.114),
        "dynamism_of_a_cyclist": (24.4, 25.3, 0.432, 0.163),
        "edtaonisl": (5.63, 6.51, 0.388, 0.159),
        "great_wave": (7.36, 11.4, 0.369, 0.139),
        "la_calanque": (69.2, 75.4, 0.41, 0.14),
        "lady_with_a_fan": (17.2, 14.8, 0.456, 0.143),
        "little_blue_horse": (10.7, 25.4, 0.378, 0.215),
        "melencolia_i": (10.2, 14.1, 0.441, 0.149),
        "mosaic_with_duck": (18.3, 17.6, 0.57, 0.125),
        "night_view_of_saruwaka_machi": (15.6, 23.3, 0.397, 0.172),
        "portrait_of_picasso": (18.7, 23.6, 0.433, 0.172),
        "roses_under_the_trees": (83.7, 89, 0.527, 0.155),
        "seine_at_la_grande_jatte": (85, 109, 0.443, 0.187),
        "self_portrait_1887": (40.7, 51.9, 0.429, 0.267),
        "shipwreck": (18.9, 26.2, 0.413, 0.237),
        "starry_night": (21.4, 27.6, 0.483, 0.247),
        "street_berlin": (5.59, 8.37, 0.459, 0.187),
        "suburb_with_washing": (22.5, 24.9, 0.462, 0.196),
        "suprematist_composition": (3.39, 5.22, 0.375, 0.148),
        "tableau_no_2_composition_vii": (7.27, 5.65, 0.53, 0.142),
        "the_muse": (3.89, 7.87, 0.433, 0.168),
        "the_scream": (25, 23.5, 0.328, 0.145),
        "the_seasons": (14.8, 12.7, 0.383, 0.139),
        "udnie": (5.07, 5.95, 0.361, 0.142),
        "wheat_field_with_cypresses": (21.5, 24, 0.347, 0.235),
        "willow_bough": (27.6, 25.4, 0.546, 0.16),
    },
}
EACH = [(network, style) for network, styles in BOUNDS.items() for style in styles]


def test_every_style_that_ships_has_bounds():
    named = {name: {each["name"] for each in styles_in(file)} for name, file in shipped_weights().items()}
    assert BOUNDS.keys() == {name for name, styles in named.items() if styles}
    assert all(styles.keys() == named[name] for name, styles in BOUNDS.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "style"),
    [each if each[1] == "udnie" else pytest.param(*each, marks=pytest.mark.release) for each in EACH],
)
def test_a_style_keeps_within_what_was_measured(network, style, two_photos):
    """A network that ships in its place must not be worse."""
    predictor = perceptual.load(network, device="cpu", engine="eager")  # the same figures on every processor
    run = partial(predictor, style=style)
    found = (*grids(run).values(), *borders(partial(run, grain=0.0), two_photos).values())
    assert all(figure < bound for figure, bound in zip(found, BOUNDS[network][style], strict=True)), found
