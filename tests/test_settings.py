import inspect
import re
from dataclasses import MISSING, dataclass
from pathlib import Path

import pytest

from perceptual.errors import InvalidOption
from perceptual.inference.metadata import shipped_weights
from perceptual.inference.predictor import Predictor
from perceptual.options import CollectionOptions, Mixture, StyleOptions, UpscaleOptions, check_alone
from perceptual.settings import (
    Choice,
    FilePath,
    Integer,
    Number,
    OneOf,
    Several,
    Switch,
    Text,
    option_name,
    parse,
    setting,
    settings_of,
)
from perceptual_training.settings import StyleSettings, StylesSettings, SuperResolutionSettings, read_recipe

RECIPES = sorted(Path(__file__).parents[1].glob("training/recipes/*.toml"))
PROTECTED = {"the_muse"}  # paintings that may not be passed on


@pytest.mark.parametrize(
    ("kind", "value", "parsed"),
    [
        (Number(0, 1), "0.6", 0.6),
        (Number(), "5e4", 5e4),
        (Integer(1), "7", 7),
        (Integer(1), 4.0, 4),
        (OneOf((4, 8)), "8", 8),
        (Choice(("jpeg", "png")), " PNG ", "png"),
        (Switch(), "On", True),
        (Switch(), False, False),
        (Text(), "x", "x"),
        (FilePath(), "~/a", Path.home() / "a"),
        (Several(Number()), "5e4, 3e4", (5e4, 3e4)),
        (Several(Number()), [1, 2], (1.0, 2.0)),
        (Several(Number()), 3, (3.0,)),
    ],
)
def test_values(kind, value, parsed):
    assert kind.parse(value) == parsed


@pytest.mark.parametrize(
    ("cls", "name", "end"),
    [
        (UpscaleOptions, "fidelty", "did you mean fidelity?"),
        (StyleOptions, "sty", "did you mean style?"),
        (CollectionOptions, "scal", "did you mean scale?"),
    ],
)
def test_an_unknown_name_is_answered_with_the_one_meant(cls, name, end):
    with pytest.raises(InvalidOption, match=f"^unknown option {name}; the options are ") as caught:
        parse(cls, {name: "2"})
    assert str(caught.value).endswith(end)


@pytest.mark.parametrize(
    ("cls", "name"),
    [(StyleOptions, "scale"), (StyleOptions, "fidelity"), (UpscaleOptions, "style"), (UpscaleOptions, "scale")],
)
def test_an_option_of_collections_is_no_unknown_name(cls, name):
    with pytest.raises(
        InvalidOption, match=f"^unknown option {name}; .*; a collection of several networks may have it"
    ):
        check_alone([name], cls)
    check_alone([name, "unheard-of"], CollectionOptions)
    check_alone(["unheard-of", "tile"], cls)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("strength", "1.5", "strength: expected a number from 0 to 1, got '1.5'"),
        ("strength", "nan", "strength: expected a number from 0 to 1, got 'nan'"),
        ("strength", "much", "strength: expected a number from 0 to 1, got 'much'"),
        ("strength", True, "strength: expected a number from 0 to 1, got 'True'"),
        ("quality", True, "quality: expected a whole number from 1 to 100, got 'True'"),
        ("quality", "90.5", "quality: expected a whole number from 1 to 100, got '90.5'"),
        ("quality", 90.5, "quality: expected a whole number from 1 to 100, got '90.5'"),
        ("format", "gif", "format: expected jpeg, png or webp, got 'gif'"),
        ("keep-colors", "maybe", "keep-colors: expected on or off, got 'maybe'"),
        ("max-size", "9" * 5000, "max-size: expected a whole number from 16 to 16384"),
        (
            "colour",
            "red",
            "unknown option colour; the options are format, quality, tile, style, stroke, grain, strength, "
            "keep-colors, max-size",
        ),
    ],
)
def test_errors_tell_what_was_expected_and_came(name, value, message):
    with pytest.raises(InvalidOption) as caught:
        parse(StyleOptions, {name: value})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(("kind", "value"), [(Number(), "inf"), (FilePath(), "~nobody-of-that-name/a")])
def test_values_that_are_none(kind, value):
    with pytest.raises(ValueError):
        kind.parse(value)


def test_defaults_and_required_settings():
    @dataclass(frozen=True, kw_only=True)
    class Example:
        needed: int = setting(MISSING, Integer(), "how many")
        other: int = setting(5, Integer(), "how many more")

    assert parse(Example, {"needed": "2"}) == Example(needed=2, other=5)
    with pytest.raises(InvalidOption, match="needed is missing: how many"):
        parse(Example, {})


def test_a_recipe_writes_the_weights_of_its_own_name():
    for recipe in RECIPES:
        values = read_recipe(recipe)
        if "style-image" in values or "upscale-factor" in values:
            assert values.get("name") or values["style-image"].stem == recipe.stem, recipe


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(recipe):
    values = read_recipe(recipe) | {"content-dir": "photos"}
    assert values.get("initial-weights", "styles") in shipped_weights()  # runs as it is
    if "super_resolution" in recipe.stem:
        assert parse(SuperResolutionSettings, values).image_size % values["upscale-factor"] == 0
        return
    if "style-dir" in values:
        assert values.get("teacher", "styles") in shipped_weights()
        assert parse(StylesSettings, values).style_dir.is_dir()
        assert not {"style-draws", "style-factors"} & values.keys()  # these name paintings, and users have others
        return
    if "--compile yes" in recipe.read_text():  # as the time it tells
        assert values["compile"] == "yes"
    settings = parse(StyleSettings, {"style-image": "painting.jpg"} | values)
    if "style-image" in values:
        assert settings.style_image.is_file() or recipe.stem in PROTECTED


def test_original_recipe_has_the_original_program_s_defaults():
    recipe = read_recipe(next(path for path in RECIPES if path.stem == "original"))
    assert recipe == {
        "batch-size": 4,
        "image-size": 256,
        "split": "validation",
        "in-channels": 3,
        "optimizer": "adam",
        "init-features": 32,
        "num-residuals": 5,
        "content-weight": 1,
        "style-weights": [5e4, 3e4, 5e4, 5e4],
        "reg-weight": 1e-7,
        "iterations": 15_000,
        "lr": 1e-3,
        "log-step": 200,
        "save-step": 500,
        "samples": 5,
        "num-workers": 2,
    }


def test_a_recipe_s_paths_are_relative_to_it(tmp_path):
    (tmp_path / "r.toml").write_text('style-image = "paintings/x.jpg"\nlr = 0.5\n')
    assert read_recipe(tmp_path / "r.toml") == {"style-image": tmp_path / "paintings/x.jpg", "lr": 0.5}
    (tmp_path / "home.toml").write_text('style-image = "~/x.jpg"\ncontent-image = false')
    recipe = read_recipe(tmp_path / "home.toml")
    assert recipe["style-image"] == Path.home() / "x.jpg"
    with pytest.raises(InvalidOption, match="content-image: expected an image file, got 'False'"):
        parse(StyleSettings, recipe | {"content-dir": "photos"})
    (tmp_path / "named.toml").write_text('initial-weights = "starry_night"')
    assert read_recipe(tmp_path / "named.toml") == {"initial-weights": "starry_night"}  # one that ships
    (tmp_path / "list.toml").write_text('initial-weights = ["x"]')
    with pytest.raises(InvalidOption, match="initial-weights: expected a weights file, got"):
        parse(StyleSettings, read_recipe(tmp_path / "list.toml") | {"content-dir": "p", "style-image": "q"})
    with pytest.raises(InvalidOption, match="missing.toml"):
        read_recipe(tmp_path / "missing.toml")
    (tmp_path / "bad.toml").write_text("lr = = 1")
    with pytest.raises(InvalidOption, match="bad.toml"):
        read_recipe(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("text", "mixture"),
    [
        ("the_scream", {"the_scream": 1}),
        ("the_scream:0.6, udnie:0.2", {"the_scream": 0.75, "udnie": 0.25}),
        ("a,b:3", {"a": 0.25, "b": 0.75}),
        ("a:1,b:0", {"a": 1, "b": 0}),
        ({"a": 1, "b": 1}, {"a": 0.5, "b": 0.5}),
    ],
)
def test_a_mixture_of_styles_adds_up_to_one(text, mixture):
    assert dict(Mixture().parse(text)) == pytest.approx(mixture)


MANY = ",".join(f"s{i}" for i in range(33))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "a:",
        ":1",
        "a:0",
        "a:0,b:0",
        "a:-1,b:2",
        "a:nan",
        "a:inf",
        "a:x",
        "a:1,a:1",
        "a,a",
        "a:60%,b:40%",
        {},
        3,
        None,
        MANY,
    ],
)
def test_what_is_no_mixture_is_an_invalid_option(text):
    with pytest.raises(
        InvalidOption, match="style: expected a style's name, or up to 32 with shares above 0, each named once"
    ):
        parse(StyleOptions, {"style": text})


def test_the_readme_has_every_option_of_a_request():
    table = (Path(__file__).parents[1] / "README.md").read_text().split("| option | values | meaning |")[1]
    rows = re.findall(r"(?m)^\| `([a-z-]+)` \|", table)
    assert sorted(rows) == sorted(option_name(each) for each in settings_of(CollectionOptions))


@pytest.mark.parametrize(("method", "options"), [("stylize", StyleOptions), ("upscale", UpscaleOptions)])
def test_every_option_of_a_request_is_a_python_argument(method, options):
    arguments = set(inspect.signature(getattr(Predictor, method)).parameters) - {"self", "photo"}
    assert arguments | {"format", "quality"} == {each.name for each in settings_of(options)}  # these two are a file's
