import json

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import vgg16

from perceptual.errors import InvalidOption
from perceptual.inference.metadata import read_metadata
from perceptual.inference.networks import SuperResolutionNetwork
from perceptual.inference.weights import save_network
from perceptual_training.all_recipes import find_recipes

COMMON = "init-features = 4\nnum-residuals = 0\nbatch-size = 1\nnum-workers = 0\nsamples = 1\nimage-size = 32\n"
RECIPES = {
    "a_begins_with_b": "upscale-factor = 4\nloss = 'pixel'\niterations = 1\n"
    "initial-weights = '../networks/b_factor.safetensors'\n",
    "a_broken": "upscale-factor = 3\n",
    "b_factor": "upscale-factor = 4\nloss = 'pixel'\niterations = 3\n",
    "c_painting": "style-image = '../stripes.png'\nstyle-size = 32\ncontent-layers = ['relu1_2']\n"
    "style-layers = ['relu1_2']\nloss-weights = '../narrow.safetensors'\niterations = 3\n",
    "d_neither": "iterations = 3\n",
    "e_protected": "style-image = '../elsewhere.jpg'\n",
}


@pytest.fixture
def folder(tmp_path, photos, painting, small_samples):
    """Recipes of tiny trainings, and a loss network of random weights that ends where they look."""
    with torch.device("meta"):
        shapes = vgg16(weights=None).features[:4].state_dict()
    state = {f"features.{key}": torch.randn(value.shape) / 10 for key, value in shapes.items()}
    metadata = {"arch": "vgg16", "mean": json.dumps([0.5] * 3), "std": json.dumps([1 / 255] * 3)}
    save_file(state, tmp_path / "narrow.safetensors", metadata)
    (tmp_path / "recipes").mkdir()
    for name, content in RECIPES.items():
        (tmp_path / f"recipes/{name}.toml").write_text(content + COMMON)
    return tmp_path


@pytest.fixture
def train_all(folder, run, monkeypatch):
    """Runs the command; gives its exit status, its lines, and errors."""
    monkeypatch.chdir(folder)

    def invoke(*arguments):
        options = ["--recipes", "recipes", "--content-dir", "photos", "--device", "cpu", *arguments]
        status, out, errors = run("train", "all", *options)
        return status, out.splitlines(), errors

    return invoke


def test_it_trains_what_is_missing_in_as_many_runs_as_it_takes(train_all, folder):
    status, lines, errors = train_all("--minutes", "0")
    assert status == 130 and lines[:2] == ["a_broken: training", "b_factor: no time left; call again to continue"]
    assert "upscale-factor: expected 2, 4 or 8, got '3'" in errors
    (folder / "recipes/a_broken.toml").unlink()

    status, lines, _ = train_all("--minutes", "0")  # each call gets something done
    assert (status, lines) == (130, ["b_factor: training", "b_factor: not finished; call again to continue"])
    assert torch.load(folder / "runs/b_factor/checkpoint.pt", weights_only=True)["iteration"] == 1
    assert read_metadata(folder / "networks/b_factor.safetensors")["provenance"]["iterations"] == 1

    status, lines, errors = train_all("--minutes", "5")
    assert status == 0 and [line for line in lines if "training" in line] == [
        "b_factor: training",
        "c_painting: training",
        "a_begins_with_b: training",
    ]
    for name in ("b_factor", "c_painting"):
        assert read_metadata(folder / f"networks/{name}.safetensors")["provenance"]["iterations"] == 3
    status, lines, _ = train_all()
    assert status == 0 and [line for line in lines if "skipped" not in line] == [
        f"{name}: already trained" for name in ("b_factor", "c_painting", "a_begins_with_b")
    ]
    assert "e_protected: skipped, as recipes/../elsewhere.jpg is missing; the recipe says where to get it" in lines


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--minutes", "soon"), 2, "perceptual train all: argument --minutes: expected a number"),
        (("--recipes", "nowhere"), 1, "perceptual: recipes: there is no folder nowhere\n"),
        (("--name", "mine"), 2, "perceptual train all: there is no option --name"),
    ],
)
def test_bad_input_is_one_line(train_all, arguments, status, message):
    code, lines, errors = train_all(*arguments)
    assert (code, lines, errors.count("\n")) == (status, [], 1) and errors.startswith(message)


def test_a_recipe_that_begins_with_a_network_of_its_own_name_goes_on(train_all, folder, monkeypatch):
    shipped = folder / "shipped.safetensors"
    config = SuperResolutionNetwork.presets["default"] | {"init_features": 4, "num_residuals": 0}
    save_network(shipped, SuperResolutionNetwork(scale=4, **config), {})
    monkeypatch.setattr("perceptual.inference.metadata.shipped_weights", lambda: {"b_factor": shipped})
    for recipe in (folder / "recipes").iterdir():
        if recipe.stem != "b_factor":
            recipe.unlink()
    with (folder / "recipes/b_factor.toml").open("a") as recipe:
        recipe.write("initial-weights = 'b_factor'\ninitial-share = 0.25\n")
    assert train_all("--minutes", "0")[0] == 130 and (folder / "networks/b_factor.safetensors").is_file()
    status, _, errors = train_all()
    assert status == 0 and "another file" not in errors
    assert read_metadata(folder / "networks/b_factor.safetensors")["provenance"]["iterations"] == 3


def test_each_recipe_comes_after_the_one_whose_network_it_begins_with(tmp_path):
    def write(name, initial=""):
        begins = f"initial-weights = '{initial}'\n" if initial else ""
        (tmp_path / f"{name}.toml").write_text(f"upscale-factor = 4\n{begins}")

    for name, initial in (("a", "b"), ("b", "c"), ("c", ""), ("d", "elsewhere"), ("e", "e")):
        write(name, initial)
    names = [recipe.name for recipe in find_recipes(tmp_path, tmp_path, tmp_path, {})]
    assert sorted(names) == ["a", "b", "c", "d", "e"] and names.index("c") < names.index("b") < names.index("a")
    write("c", "a")
    with pytest.raises(InvalidOption, match="recipes: each begins with the other's network: "):
        find_recipes(tmp_path, tmp_path, tmp_path, {})
