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
        "adele_bloch_bauer_i": (19.3, 17, 0.499, 0.191),
        "akbar_hands_over_his_crown": (36.7, 25, 0.53, 0.16),
        "beach_at_saint_clair": (42.6, 26.4, 0.501, 0.159),
        "book_of_kells_in_principio": (66.1, 27.4, 0.617, 0.155),
        "bridge_over_water_lilies": (20, 20.5, 0.553, 0.174),
        "carceri_prison": (11.6, 22.6, 0.481, 0.164),
        "champs_de_mars_red_tower": (44.4, 14.6, 0.429, 0.175),
        "composition_a_1920": (16.5, 11.2, 0.502, 0.287),
        "composition_vii": (23, 22.4, 0.568, 0.153),
        "composition_viii": (28.4, 19.4, 0.41, 0.21),
        "delaunay_metzinger": (45.8, 22.3, 0.429, 0.141),
        "dynamism_of_a_cyclist": (46, 27.5, 0.518, 0.173),
        "edtaonisl": (21.7, 16.2, 0.517, 0.152),
        "great_wave": (15.9, 18.5, 0.425, 0.12),
        "la_calanque": (28.7, 29.8, 0.487, 0.156),
        "lady_with_a_fan": (16.5, 21.2, 0.51, 0.162),
        "little_blue_horse": (21.6, 13.8, 0.361, 0.208),
        "melencolia_i": (12.5, 27.6, 0.503, 0.139),
        "mosaic_with_duck": (175, 61.1, 0.585, 0.148),
        "night_view_of_saruwaka_machi": (24.8, 14.4, 0.454, 0.231),
        "portrait_of_picasso": (20.4, 12.3, 0.495, 0.163),
        "roses_under_the_trees": (33.3, 30.3, 0.629, 0.16),
        "seine_at_la_grande_jatte": (68.4, 27, 0.518, 0.145),
        "self_portrait_1887": (30.9, 13.7, 0.49, 0.209),
        "shipwreck": (31.6, 14.8, 0.508, 0.187),
        "starry_night": (33.1, 30.9, 0.537, 0.152),
        "street_berlin": (13.7, 20, 0.417, 0.119),
        "suburb_with_washing": (30, 16.9, 0.526, 0.201),
        "suprematist_composition": (2.68, 12.9, 0.417, 0.173),
        "tableau_no_2_composition_vii": (170, 41.1, 0.566, 0.173),
        "the_muse": (21, 15.2, 0.497, 0.158),
        "the_scream": (22.6, 14.5, 0.424, 0.152),
        "the_seasons": (28.8, 17.5, 0.443, 0.144),
        "udnie": (12.5, 13.9, 0.52, 0.172),
        "wheat_field_with_cypresses": (16.7, 9.6, 0.394, 0.154),
        "willow_bough": (14.8, 21.7, 0.614, 0.156),
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
