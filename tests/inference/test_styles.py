import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

import perceptual
from perceptual.archives.build import package_collection
from perceptual.commands import build_parser
from perceptual.commands.bulk import read_job
from perceptual.errors import PerceptualError, WeightsError
from perceptual.inference.metadata import FORMAT, LEARNED, read_metadata
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.styles import assemble, find_trunk, read_style, read_weights, save_style
from perceptual.inference.weights import load_network, save_network

PHOTO = Image.effect_noise((48, 40), 80).convert("RGB")


@pytest.fixture
def trunk(tmp_path):
    """A trunk of two styles at two sizes."""
    torch.manual_seed(0)
    network = StyleNetwork(styles=2, sizes=2, init_features=4, num_residuals=1)
    torch.nn.init.normal_(network.styles)
    save_network(tmp_path / "trunk.safetensors", network, {"styles": [{"name": "dots"}, {"name": "stripes"}]})
    return tmp_path / "trunk.safetensors"


@pytest.fixture
def mine(trunk):
    """A style learned on it, beside it."""
    return learned(trunk, trunk.with_name("mine.safetensors"))


def learned(trunk, file, size=2, numbers=None):
    weights = read_weights(trunk)
    shape = size, weights.tensors["styles"].shape[2]
    row = np.random.default_rng(1).standard_normal(shape) if numbers is None else numbers
    save_style(file, row, weights.trunk, {"name": file.stem, "licence": "CC0", "title": "Mine"})
    return file


def test_a_style_file_is_small_and_says_where_it_comes_from(mine, run):
    numbers = load_file(mine)["style"]
    assert numbers.dtype == np.float16 and mine.stat().st_size < numbers.nbytes + 600
    status, out, _ = run("inspect", mine, "--json")
    told = json.loads(out)
    assert status == 0 and told["task"] == LEARNED and told["provenance"]["licence"] == "CC0"
    assert len(told["config"]["trunk"]) == 64


def test_added_to_its_trunk_others_stay_bit_for_bit(trunk, mine):
    before, after = perceptual.load(trunk, "cpu", "eager"), perceptual.load(trunk, "cpu", "eager", styles=[mine])
    assert after.styles == ["dots", "stripes", "mine"]
    for style in ({"dots": 1}, {"dots": 0.3, "stripes": 0.7}):
        made = [each.stylize(PHOTO, style=style, stroke=0.5).tobytes() for each in (before, after)]
        assert made[0] == made[1]
    assert after.stylize(PHOTO, style="mine").tobytes() != after.stylize(PHOTO, style="dots").tobytes()


def test_added_to_an_only_style_the_provenance_is_there_once(tmp_path):
    network = StyleNetwork(init_features=4, num_residuals=1)
    told = {"title": "Dots", "licence": "CC0", "recipe": {"lr": 1e-3}, "versions": {"torch": "2"}}
    save_network(tmp_path / "dots.safetensors", network, told)
    mine = learned(tmp_path / "dots.safetensors", tmp_path / "mine.safetensors", size=1)
    provenance = assemble(tmp_path / "dots.safetensors", [mine]).metadata["provenance"]
    assert provenance["styles"][0] == {"name": "dots", "title": "Dots", "licence": "CC0"}
    assert provenance["recipe"] == told["recipe"] and provenance["styles"][1]["name"] == "mine"


def test_alone_it_needs_no_name(trunk, mine, run, tmp_path):
    own = perceptual.load(mine, "cpu", "eager")
    assert own.styles == ["mine"]
    same = perceptual.load(trunk, "cpu", "eager", styles=[mine]).stylize(PHOTO, style="mine", stroke=1)
    assert own.stylize(PHOTO, stroke=1).tobytes() == same.tobytes()
    PHOTO.save(tmp_path / "photo.png")
    made = tmp_path / "made.png"
    assert run("stylize", tmp_path / "photo.png", "--model", mine, "-o", made, "--engine", "eager")[0] == 0
    assert Image.open(made).size == PHOTO.size


def test_the_command_line_mixes_it_with_styles_of_its_trunk(trunk, mine, run, tmp_path):
    PHOTO.save(tmp_path / "photo.png")
    command = ["stylize", tmp_path / "photo.png", "--model", trunk, "--style", "mine:0.6,dots:0.4", "--engine", "eager"]
    assert run(*command, "--learned", mine, "-o", tmp_path / "made.png")[0] == 0
    mixed = perceptual.load(trunk, "cpu", "eager", styles=[mine]).stylize(PHOTO, style={"mine": 0.6, "dots": 0.4})
    assert Image.open(tmp_path / "made.png").tobytes() == mixed.tobytes()
    status, _, err = run(*command, "-o", tmp_path / "other.png")
    assert status == 1 and "no style 'mine'" in err
    status, _, err = run(*command, "--learned", mine, "--url", "http://127.0.0.1:9", "-o", tmp_path / "other.png")
    assert status == 1 and "models register" in err


def test_a_learned_style_is_found_by_its_name(trunk, mine, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    PHOTO.save("photo.png")
    Path("networks").mkdir()
    for file in (trunk, mine):
        file.rename(Path("networks", file.name))
    assert perceptual.load("trunk", "cpu", "eager", styles=["mine"]).styles == ["dots", "stripes", "mine"]
    named = ("--model", "trunk", "--learned", "mine", "--style", "mine:0.6,dots:0.4", "--engine", "eager")
    assert run("stylize", "photo.png", *named, "-o", "made.png")[::2] == (0, "")
    assert run("stylize", "photo.png", *named, "--learned", "nine", "-o", "other.png")[2].startswith(
        "perceptual: nine is neither a weights file nor the name of a network; did you mean mine?"
    )
    args = build_parser("bulk").parse_args(["bulk", "photo.png", "out", *named])
    job, _ = read_job(args)
    assert [*job.weights] == ["trunk.safetensors", "mine.safetensors"] and job.learned == ("mine.safetensors",)


def test_a_trunk_is_the_same_whatever_its_styles(trunk, mine, tmp_path):
    network, metadata = load_network(trunk, [mine])
    more = tmp_path / "more" / "trunk.safetensors"
    save_network(more, network, metadata["provenance"])
    assert read_weights(more).trunk == read_weights(trunk).trunk
    assert find_trunk(mine) == trunk
    network.encoder[0][0].weight.data[0, 0, 0, 0] += 1
    save_network(more, network, metadata["provenance"])
    assert read_weights(more).trunk != read_weights(trunk).trunk


def test_a_collection_has_it_in_its_trunk(trunk, mine, weights, tmp_path):
    archive, _ = package_collection("every", [mine, trunk, weights], tmp_path / "store")
    with zipfile.ZipFile(archive) as file:
        assert {name for name in file.namelist() if name.endswith(".safetensors")} == {
            "trunk.safetensors",
            "tiny.safetensors",
            "large/super_resolution_x4.safetensors",
        }
        file.extract("trunk.safetensors", tmp_path / "out")
    assert perceptual.load(tmp_path / "out" / "trunk.safetensors", "cpu", "eager").styles == ["dots", "stripes", "mine"]


def test_an_archive_of_it_alone(mine, run, tmp_path):
    assert run("package", mine, "--model-store", tmp_path / "store")[0] == 0
    with zipfile.ZipFile(tmp_path / "store" / "mine.mar") as file:
        file.extract("mine.safetensors", tmp_path / "out")
    assert perceptual.load(tmp_path / "out" / "mine.safetensors", "cpu", "eager").styles == ["mine"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda trunk, file: learned(trunk, file, size=1), r"has 1×\d+ parameters, and styles of .* have 2×"),
        (lambda trunk, file: learned(trunk, file, numbers=np.zeros((2, 7))), r"has 2×7 parameters"),
        (lambda trunk, file: learned(trunk, file.with_name("dots.safetensors")), "has a style dots already: rename"),
        (lambda trunk, file: save_style(file, np.zeros((2, 7)), "0" * 64, {}), "was learned on another trunk"),
        (lambda trunk, file: file.write_bytes(b"junk"), "not a safetensors file, or is damaged"),
        (lambda trunk, file: file.write_bytes(trunk.read_bytes()), "is not a learned style"),
        (lambda trunk, file: store(file, {"style": np.full((2, 9), np.nan, np.float16)}), "not all numbers"),
        (lambda trunk, file: store(file, {"other": np.zeros((2, 9), np.float16)}), "does not hold the parameters"),
        (lambda trunk, file: store(file, {"style": np.zeros((2, 9), np.float16)}, "{}"), "on which trunk"),
        (lambda trunk, file: learned(trunk, file.with_name("a b.safetensors")), "'a b' cannot be served"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(trunk, tmp_path, damage, message):
    file = tmp_path / "bad.safetensors"
    made = damage(trunk, file)
    with pytest.raises(PerceptualError, match=message):
        perceptual.load(trunk, "cpu", "eager", styles=[made if hasattr(made, "stem") else file])


def store(file, tensors, config='{"trunk": "00"}'):
    save_file(tensors, file, {"format": FORMAT, "task": LEARNED, "config": config, "provenance": "{}"})


def test_a_style_without_its_trunk(mine, weights, tmp_path):
    moved = mine.rename(tmp_path / "elsewhere.safetensors")
    (tmp_path / "trunk.safetensors").unlink()
    with pytest.raises(WeightsError, match="neither beside it, nor in networks/, nor one that ships: copy it"):
        perceptual.load(moved)
    with pytest.raises(WeightsError, match="is a learned style: add all styles to their trunk"):
        perceptual.load(moved, styles=[moved])


def test_a_network_without_styles_is_no_trunk(mine):
    with pytest.raises(WeightsError, match="has no table of styles"):
        perceptual.load("super_resolution_x4_fast", styles=[mine])


def test_infinite_numbers_are_not_saved(tmp_path):
    with pytest.raises(WeightsError, match="not finite in half precision"):
        save_style(tmp_path / "x.safetensors", np.full((1, 8), 1e6), "0", {})
    assert not (tmp_path / "x.safetensors").exists()


def test_reading_styles_waits_for_no_torch(mine):
    program = f"from perceptual.inference.styles import read_style; read_style({str(mine)!r}); import sys; "
    assert (
        subprocess.run([sys.executable, "-c", program + "sys.exit('torch' in sys.modules)"], check=False).returncode
        == 0
    )
    assert read_style(mine).metadata == read_metadata(mine)
