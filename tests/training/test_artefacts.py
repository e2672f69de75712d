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


NO_GRID = 2  # below this, a figure is that of the noise
# What was measured, rounded up by a tenth: grids on grey and on gradients, change at the border and in the centre.
BOUNDS = {
    "styles": {
        "adele_bloch_bauer_i": (1.78, 1.53, 0.389, 0.167),
        "akbar_hands_over_his_crown": (1.12, 0.809, 0.436, 0.154),
        "beach_at_saint_clair": (1.22, 1.26, 0.414, 0.177),
        "book_of_kells_in_principio": (1.28, 1.1, 0.593, 0.185),
        "bridge_over_water_lilies": (1.4, 1.52, 0.467, 0.143),
        "carceri_prison": (1.55, 1.41, 0.446, 0.163),
        "champs_de_mars_red_tower": (1.94, 1.31, 0.408, 0.19),
        "composition_a_1920": (1.8, 1.89, 0.313, 0.21),
        "composition_vii": (1.32, 0.905, 0.45, 0.205),
        "composition_viii": (1.61, 1.44, 0.412, 0.168),
        "delaunay_metzinger": (1.58, 1.75, 0.396, 0.107),
        "dynamism_of_a_cyclist": (0.893, 1.27, 0.431, 0.156),
        "edtaonisl": (1.05, 1.08, 0.4, 0.183),
        "great_wave": (1.02, 0.765, 0.379, 0.127),
        "la_calanque": (1.53, 1.16, 0.416, 0.125),
        "lady_with_a_fan": (1.36, 0.949, 0.486, 0.144),
        "little_blue_horse": (1.01, 1.07, 0.353, 0.206),
        "melencolia_i": (1.61, 1.44, 0.445, 0.152),
        "mosaic_with_duck": (2.78, 1.68, 0.559, 0.139),
        "night_view_of_saruwaka_machi": (1.03, 1.12, 0.392, 0.15),
        "portrait_of_picasso": (0.95, 0.875, 0.426, 0.138),
        "roses_under_the_trees": (1.12, 1.51, 0.525, 0.144),
        "seine_at_la_grande_jatte": (1.83, 1.17, 0.46, 0.164),
        "self_portrait_1887": (1.49, 1.63, 0.44, 0.244),
        "shipwreck": (1.46, 1.24, 0.406, 0.217),
        "starry_night": (1.77, 2.28, 0.471, 0.225),
        "street_berlin": (1.59, 1.22, 0.49, 0.178),
        "suburb_with_washing": (2.61, 1.05, 0.468, 0.166),
        "suprematist_composition": (1.33, 1.61, 0.44, 0.143),
        "tableau_no_2_composition_vii": (1.53, 1.25, 0.525, 0.16),
        "the_muse": (1.28, 1.35, 0.457, 0.166),
        "the_scream": (1.41, 1.25, 0.31, 0.132),
        "the_seasons": (1.24, 1.01, 0.391, 0.141),
        "udnie": (1.02, 0.905, 0.367, 0.139),
        "wheat_field_with_cypresses": (1.23, 1.96, 0.357, 0.224),
        "willow_bough": (1.49, 1.34, 0.603, 0.166),
    },
    "styles_fast": {
        "adele_bloch_bauer_i": (1.69, 2.43, 0.381, 0.156),
        "akbar_hands_over_his_crown": (1.44, 2.01, 0.423, 0.158),
        "beach_at_saint_clair": (3.66, 3.35, 0.424, 0.171),
        "book_of_kells_in_principio": (4.59, 5.56, 0.586, 0.171),
        "bridge_over_water_lilies": (3.99, 2.88, 0.463, 0.132),
        "carceri_prison": (2.72, 2.64, 0.436, 0.186),
        "champs_de_mars_red_tower": (1.69, 2.16, 0.371, 0.196),
        "composition_a_1920": (2.38, 2.49, 0.286, 0.182),
        "composition_vii": (1.75, 1.9, 0.427, 0.176),
        "composition_viii": (2.14, 5.43, 0.384, 0.165),
        "delaunay_metzinger": (3.75, 3.34, 0.372, 0.115),
        "dynamism_of_a_cyclist": (1.97, 2.17, 0.43, 0.159),
        "edtaonisl": (2.15, 2.26, 0.385, 0.156),
        "great_wave": (1.81, 2.69, 0.358, 0.134),
        "la_calanque": (3.63, 2.25, 0.412, 0.14),
        "lady_with_a_fan": (1.21, 1.96, 0.45, 0.142),
        "little_blue_horse": (1.81, 3.41, 0.371, 0.22),
        "melencolia_i": (3.55, 4.43, 0.436, 0.15),
        "mosaic_with_duck": (2.42, 3.51, 0.567, 0.126),
        "night_view_of_saruwaka_machi": (1.57, 1.92, 0.396, 0.182),
        "portrait_of_picasso": (2.3, 2.17, 0.427, 0.166),
        "roses_under_the_trees": (3.98, 4.45, 0.528, 0.151),
        "seine_at_la_grande_jatte": (3.78, 4.07, 0.443, 0.189),
        "self_portrait_1887": (3.02, 2.97, 0.433, 0.252),
        "shipwreck": (2.1, 2.41, 0.411, 0.232),
        "starry_night": (2.29, 3.19, 0.485, 0.24),
        "street_berlin": (2.29, 2.08, 0.463, 0.196),
        "suburb_with_washing": (2.42, 1.98, 0.459, 0.185),
        "suprematist_composition": (1.77, 2.34, 0.375, 0.151),
        "tableau_no_2_composition_vii": (1.52, 2.25, 0.529, 0.134),
        "the_muse": (1.81, 1.66, 0.426, 0.165),
        "the_scream": (1.54, 1.79, 0.324, 0.147),
        "the_seasons": (2.42, 2.17, 0.376, 0.14),
        "udnie": (1.8, 2.7, 0.356, 0.143),
        "wheat_field_with_cypresses": (2.87, 2.22, 0.342, 0.221),
        "willow_bough": (6.12, 4.28, 0.54, 0.163),
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
    *grids_known, border, centre = BOUNDS[network][style]
    bounds = (*(max(bound, NO_GRID) for bound in grids_known), border, centre)
    assert all(figure < bound for figure, bound in zip(found, bounds, strict=True)), found
