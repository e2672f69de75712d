import json
import shutil
import zipfile
from argparse import _SubParsersAction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving_fixtures import Http

import perceptual
from perceptual.commands import COMMANDS, build_parser, main
from perceptual.errors import OutOfMemory
from perceptual.inference.metadata import shipped_weights
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.weights import save_network


@pytest.fixture
def folder(photo, tmp_path):
    """Photos in two nested folders, one of them broken."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "one.png").write_bytes(photo)
    (tmp_path / "in" / "deep" / "two.png").write_bytes(photo)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no image")
    return tmp_path / "in"


def test_help_teaches(run):
    status, out, _ = run("--help")
    assert status == 0 and all(command in out for command in COMMANDS)
    for command in COMMANDS:
        status, out, _ = run(command, "--help")
        assert status == 0 and "usage: perceptual" in out
    status, out, _ = run("train", "style", "--help")
    assert all(f"\n{group}:" in out for group in ("Data", "Network", "Losses", "Optimization", "Output"))


def helps(parser):
    """The help of a command and of those below it, by its name, without line breaks."""
    yield parser.prog, " ".join(parser.format_help().split())
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for each in action.choices.values():
                yield from helps(each)


def test_every_help_explains_itself_and_shows_no_path_of_a_machine_or_empty_default():
    for name, text in helps(build_parser()):
        assert str(Path(__file__).parents[2]) not in text and "(default: )" not in text, name
    texts = dict(helps(build_parser()))
    for name in ("train", "evaluate"):
        assert f" perceptual {name} style" in texts[f"perceptual {name}"].partition(" tasks: ")[0]
    required = "usage: perceptual evaluate style --model TEXT --content PATH [settings] "
    assert texts["perceptual evaluate style"].startswith(required)


def test_a_default_that_depends_on_recipe_or_trunk_is_not_shown():
    texts = dict(helps(build_parser()))
    assert "(default:" not in texts["perceptual train all"]
    assert "the time for all of them together" in texts["perceptual train all"]
    losses = texts["perceptual learn"].partition(" Losses: ")[2].partition(" Optimization: ")[0]
    assert losses.count("(default:") == losses.count("(default: 0)") == 3  # of steadiness, peaks and grids


ORIGINAL_ARGUMENTS = """batch-size image-size split in-channels init-features num-residuals style-image content-image
    content-weight style-weights reg-weight iterations lr log-step save-step samples sample-path model-path device
    num-workers"""


@pytest.mark.parametrize("name", ORIGINAL_ARGUMENTS.split())
def test_the_original_program_s_arguments_are_all_there(run, name):
    _, out, _ = run("train", "style", "--help")
    assert f"--{name} " in out


@pytest.mark.parametrize("name", ["upscale-factor", "init-features", "num-residuals", "loss", "degradation"])
def test_super_resolution_s_arguments_are_all_there(run, name):
    status, out, _ = run("train", "super-resolution", "--help")
    assert status == 0 and f"--{name} " in out


def test_a_wrong_command_line_is_one_line(run):
    status, out, err = run("stylize", "x.jpg", "--model", "m", "-o", "out", "--strength", "2")
    assert status == 2 and not out
    assert err.count("\n") == 1
    assert "--strength: expected a number from 0 to 1, got '2' (see perceptual stylize --help)" in err


def test_the_command_line_wins_over_the_recipe(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "perceptual_training.style.train_style", lambda settings, resume: seen.append((settings, resume))
    )
    (tmp_path / "r.toml").write_text('style-image = "p.jpg"\nlr = 0.5\niterations = 7\nstyle-weights = [1, 2, 3, 4]\n')
    arguments = ["train", "style", "--recipe", str(tmp_path / "r.toml"), "--content-dir", "photos", "--iterations", "9"]
    assert main([*arguments, "--style-weights", "5e4", "3e4", "5e4", "5e4", "--resume"]) == 130
    ((settings, resume),) = seen
    assert (settings.lr, settings.iterations, settings.style_image) == (0.5, 9, tmp_path / "p.jpg")
    assert settings.style_weights == (5e4, 3e4, 5e4, 5e4) and resume
    assert (settings.batch_size, settings.image_size) == (4, 256)


def test_a_recipe_may_name_a_trunk(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("perceptual_training.learning.learn_style", lambda settings, resume: seen.append(settings))
    (tmp_path / "r.toml").write_text('trunk = "styles"\nstyle-image = "p.jpg"\n')
    assert main(["train", "style", "--recipe", str(tmp_path / "r.toml"), "--content-dir", "photos"]) == 130
    assert (seen[0].trunk, seen[0].iterations) == (shipped_weights()["styles"], 150)


def test_learn_lists_no_option_that_the_trunk_determines(run):
    assert "--trunk " in (out := run("learn", "--help")[1])
    assert not any(f"--{option} " in out for option in ("preset", "init-features", "initial-weights", "in-channels"))


def test_training_without_photos_or_painting_says_what_is_missing(run):
    status, _, err = run("train", "style", "--content-dir", "photos")
    assert (status, err) == (1, "perceptual: style-image is missing: image file of the painting; required\n")


@pytest.mark.slow
def test_stylize_one_photo(run, weights, photo, tmp_path):
    (tmp_path / "photo.png").write_bytes(photo)
    status, out, err = run("stylize", tmp_path / "photo.png", "--model", weights, "-o", tmp_path / "out.png")
    assert (status, err) == (0, "") and "1 of 1 photos stylized" in out
    expected = perceptual.load(weights, device="cpu").stylize(photo)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), np.asarray(expected))


@pytest.mark.slow
def test_stylize_a_folder_goes_on_past_a_bad_file(run, weights, folder, tmp_path):
    out_folder = tmp_path / "out"
    status, out, err = run("stylize", folder, "--model", weights, "-o", out_folder, "--format", "webp")
    assert status == 1 and "2 of 3 photos stylized" in out
    assert err.startswith(f"{folder / 'broken.jpg'}: ") and err.count("\n") == 1
    assert sorted(p.relative_to(out_folder).as_posix() for p in out_folder.rglob("*.*")) == [
        "deep/two.webp",
        "one.webp",
    ]
    assert Image.open(out_folder / "one.webp").format == "WEBP"


@pytest.mark.slow
def test_stylize_accounts_for_every_file_of_a_folder(run, weights, photo, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("one.png", "one.webp", "two.heic", "._IMG.JPG", "notes.txt"):
        (photos / name).write_bytes(b"\0" if name in ("two.heic", "._IMG.JPG", "notes.txt") else photo)
    status, out, err = run("stylize", photos, "--model", weights, "-o", tmp_path / "out")
    assert status == 1 and err.startswith(f"{photos / 'two.heic'}: this is not an image")
    assert out == f"2 of 3 photos stylized, in {tmp_path / 'out'}; ignored 2 other files: ._IMG.JPG, notes.txt\n"
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["one.png.jpg", "one.webp.jpg"]


def test_stylize_never_overwrites_photos_or_its_own_results(run, weights, folder, tmp_path):
    def attempt(*arguments):
        status, _, err = run("stylize", *arguments, "--model", weights)
        assert status == 1 and err.count("\n") == 1
        return err

    assert "would overwrite a photo" in attempt(folder, "-o", folder, "--format", "png")
    shutil.copy(folder / "one.png", folder / "deep" / "one.png")
    assert "would both become" in attempt(folder / "one.png", folder / "deep" / "one.png", "-o", tmp_path / "out")
    assert "need a folder" in attempt(folder, "-o", tmp_path / "out.jpg")
    assert "must end in .jpg" in attempt(folder / "one.png", "-o", tmp_path / "out.bmp")
    assert "contradicts --format" in attempt(folder / "one.png", "-o", tmp_path / "out.jpg", "--format", "png")
    (tmp_path / "empty").mkdir()
    assert "no images in" in attempt(tmp_path / "empty", "-o", tmp_path / "out")


def test_a_missing_photo_or_model_is_one_line(run, weights, tmp_path):
    status, _, err = run("stylize", tmp_path / "missing.jpg", "--model", weights, "-o", tmp_path / "out.jpg")
    assert status == 1 and "cannot read" in err and err.count("\n") == 1
    status, _, err = run("stylize", tmp_path / "missing.jpg", "--model", "nobody", "-o", tmp_path / "out.jpg")
    assert status == 1 and "neither a weights file nor the name" in err and err.count("\n") == 1


def test_a_full_gpu_costs_one_photo_and_not_those_after_it(run, weights, folder, tmp_path, monkeypatch):
    def stylize_pictures(self, pictures, options):
        if not written(tmp_path / "out"):
            (tmp_path / "out").mkdir(exist_ok=True)
            (tmp_path / "out" / "tried").touch()
            raise OutOfMemory("cuda has too little memory left")
        return pictures

    def written(out):
        return [file.name for file in out.rglob("*") if file.is_file()]

    monkeypatch.setattr("perceptual.inference.predictor.Predictor.stylize_pictures", stylize_pictures)
    (folder / "broken.jpg").unlink()
    status, out, err = run("stylize", folder, "--model", weights, "-o", tmp_path / "out")
    assert status == 1 and "1 of 2 photos stylized, in " in out
    assert err == f"{folder / 'deep/two.png'}: cuda has too little memory left\n"


# ---- Super-resolution


@pytest.mark.slow
def test_upscale_one_photo(run, upscaler, photo, tmp_path):
    (tmp_path / "photo.png").write_bytes(photo)
    command = ("upscale", tmp_path / "photo.png", "--model", upscaler, "-o", tmp_path / "out.png")
    for arguments, options in [((), {}), (("--no-histogram-matching",), {"histogram_matching": False})]:
        status, out, err = run(*command, "--scale", "4", *arguments)
        assert (status, err) == (0, "")
        assert out == f"1 of 1 photos enlarged 4 times, in {tmp_path / 'out.png'}\n"
        expected = perceptual.load(upscaler, device="cpu").upscale(photo, **options)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), np.asarray(expected))


def test_upscale_goes_on_past_photos_that_are_broken_or_too_large(run, upscaler, folder, tmp_path):
    Image.new("RGB", (5000, 900)).save(folder / "wide.png")
    status, out, err = run("upscale", folder, "--model", upscaler, "-o", tmp_path / "out")
    assert status == 1 and "2 of 4 photos enlarged 4 times" in out and err.count("\n") == 2
    assert "20000×3600; the limit is 67108864 pixels in all: send 4827×868 at most" in err


@pytest.mark.slow
def test_upscale_takes_the_network_that_ships_for_a_factor(run, upscaler, photo, tmp_path, monkeypatch):
    (tmp_path / "photo.png").write_bytes(photo)
    monkeypatch.setattr("perceptual.inference.metadata.shipped_weights", lambda: {"super_resolution_x4": upscaler})
    for arguments in ((), ("--scale", "4")):
        assert run("upscale", tmp_path / "photo.png", "-o", tmp_path / "out.png", *arguments)[0] == 0
    status, _, err = run("upscale", tmp_path / "photo.png", "--scale", "8", "-o", tmp_path / "out.png")
    assert status == 1 and err.startswith("perceptual: super_resolution_x8 is neither a weights file nor")


def test_upscale_by_a_fidelity(run, blended, photo, tmp_path):
    (tmp_path / "photo.png").write_bytes(photo)
    command = ("upscale", tmp_path / "photo.png", "--model", blended, "--device", "cpu", "-o", tmp_path / "out.png")
    for fidelity in (0, 1):
        assert run(*command, "--scale", 2, "--fidelity", fidelity)[0] == 0
        expected = perceptual.load(blended, device="cpu").upscale(photo, fidelity=fidelity)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), np.asarray(expected))


@pytest.mark.slow
def test_stylize_enlarges_the_result_if_asked(run, upscaler, weights, photo, tmp_path, monkeypatch):
    (tmp_path / "photo.png").write_bytes(photo)
    monkeypatch.setattr("perceptual.inference.metadata.shipped_weights", lambda: {"super_resolution_x4": upscaler})
    command = ("stylize", tmp_path / "photo.png", "--model", weights, "--device", "cpu", "-o", tmp_path / "out.png")
    status, out, _ = run(*command, "--scale", 4)
    assert status == 0 and out.startswith("1 of 1 photos stylized and enlarged 4 times")
    styled = perceptual.load(weights, device="cpu").stylize(photo)
    expected = perceptual.load(upscaler, device="cpu").upscale(styled)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), np.asarray(expected))


@pytest.mark.slow
def test_factors_and_weights_that_do_not_fit_are_one_line(run, upscaler, weights, photo, tmp_path):
    (tmp_path / "photo.png").write_bytes(photo)
    files = (tmp_path / "photo.png", "-o", tmp_path / "out.png")
    status, _, err = run("upscale", *files, "--scale", "3")
    assert status == 2 and "--scale: expected 2, 4 or 8, got '3'" in err and err.count("\n") == 1
    for command, message in [
        (("upscale", *files, "--model", upscaler, "--scale", "8"), f"scale: {upscaler} enlarges 4 times, not 8"),
        (("upscale", *files, "--model", upscaler, "--fidelity", 1), "fidelity: this network has one set of weights"),
        (("upscale", *files, "--model", weights), "these weights are for style, not for super-resolution"),
        (("stylize", *files, "--model", upscaler), "these weights are for super-resolution, not for style"),
    ]:
        assert run(*command) == (1, "", f"perceptual: {message}\n")
    assert not (tmp_path / "out.png").exists()


def test_inspect_numbers_what_was_before(run, tmp_path):
    earlier = [{"name": "a", "iterations": 5}, {"name": "b", "iterations": 7}]
    save_network(tmp_path / "c.safetensors", StyleNetwork(init_features=4), {"earlier_trainings": earlier})
    status, out, _ = run("inspect", tmp_path / "c.safetensors")
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert status == 0 and rows["provenance.earlier_trainings.2.iterations"] == "7"


def test_inspect_prints_the_provenance(run, weights):
    status, out, _ = run("inspect", weights)
    assert status == 0 and "provenance.description" in out and "für Tests" in out and "config.init_features" in out
    status, out, _ = run("inspect", weights, "--json")
    assert json.loads(out)["provenance"]["version"] == "1.2"


def test_package_builds_once(run, weights, tmp_path):
    assert run("package", weights, "--model-store", tmp_path)[1] == f"{tmp_path / 'tiny.mar'} built\n"
    assert run("package", weights, "--model-store", tmp_path)[1] == f"{tmp_path / 'tiny.mar'} is up to date\n"


def test_a_collection_of_what_ships_has_one_network_for_each_purpose(run, tmp_path):
    assert run("package", "--collection", "whole", "--model-store", tmp_path)[0] == 0
    with zipfile.ZipFile(tmp_path / "whole.mar") as archive:
        held = {Path(name).stem for name in archive.namelist() if name.endswith(".safetensors")}
    assert held == {"styles", "super_resolution_x2", "super_resolution_x4", "super_resolution_x8"}


def test_two_networks_of_one_name_are_refused(run, weights, tmp_path):
    (tmp_path / "other").mkdir()
    other = shutil.copy(weights, tmp_path / "other")
    status, _, err = run("package", weights, other, "--model-store", tmp_path / "store")
    assert status == 1 and "would both be tiny: rename one" in err
    assert not (tmp_path / "store").exists()


def test_what_cannot_be_written_is_one_line(run, weights, tmp_path, photo):
    (tmp_path / "file").write_bytes(photo)
    status, _, err = run("package", weights, "--model-store", tmp_path / "file")
    assert status == 1 and len(err.splitlines()) == 1 and str(tmp_path / "file") in err
    photo = tmp_path / "file.jpg"
    (tmp_path / "file").rename(photo)
    status, _, err = run("stylize", photo, "--model", weights, "-o", photo / "out.png")
    assert status == 1 and err == f"perceptual: {photo}: cannot be written to; choose another --output\n"


def test_options_that_name_two_servers_are_refused(run):
    assert "give only one" in run("status", "--url", "http://127.0.0.1:1", "--port", "8080")[2]
    assert "--key-file needs --url" in run("token", "--key-file", "key_file.json")[2]


def test_token_prints_a_token_the_server_takes(run, server):
    url = server.address.inference_url
    port = url.rsplit(":", 1)[1]
    status, out, _ = run("token", "--port", port)
    assert status == 0
    answer = Http(url).get("/ping", headers={"Authorization": f"Bearer {out.strip()}"})
    assert answer.status_code == 200
    assert run("token", "management", "--port", port)[1] not in ("", out)


def test_parser_knows_no_abbreviations():
    with pytest.raises(SystemExit):
        build_parser().parse_args(["inspect", "x", "--js"])
