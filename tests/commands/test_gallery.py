import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

import perceptual
from perceptual.inference.metadata import read_metadata, shipped_weights, styles_in
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.sheets import LINE, contact_sheet, shortened
from perceptual.inference.weights import save_network
from perceptual.options import SCALES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def styles(tmp_path):
    """Weights files of five tiny networks."""
    torch.manual_seed(0)
    files = [tmp_path / f"style_{index}.safetensors" for index in range(5)]
    for file in files:
        save_network(file, StyleNetwork(init_features=4, num_residuals=0), {"style_image": "starry_night.jpg"})
    return files


def test_a_sheet_gives_every_column_its_width_and_names_their_line():
    red, green, blue = (Image.new("RGB", size, color) for size, color in [
        ((30, 20), "red"), ((50, 10), "green"), ((40, 30), "blue"),
    ])  # fmt: skip
    sheet = contact_sheet([[("one", red), ("two", green)], [("", blue)]], gap=2)
    assert sheet.size == (40 + 50 + 3 * 2, 20 + LINE + 30 + 3 * 2)
    assert sheet.getpixel((2, 2 + LINE)) == (255, 0, 0) and sheet.getpixel((2 + 40 + 2, 2 + LINE)) == (0, 128, 0)
    assert sheet.getpixel((2, 2 + LINE + 20 + 2)) == (0, 0, 255)  # no names, no line
    assert np.asarray(sheet)[: 2 + LINE].min() < 128  # something is written
    assert contact_sheet([[("a name that is far too long for it", red)]], gap=2).size == (34, 20 + LINE + 4)


def test_a_name_that_is_too_long_ends_with_an_ellipsis():
    font = ImageFont.load_default(12)
    assert shortened("udnie", 64, font) == "udnie"
    short = shortened("composition_vii", 64, font)
    assert short[-1] == "…" and "composition_vii".startswith(short[:-1]) and len(short) > 5
    assert font.getlength(short) <= 64 < font.getlength("composition_vii")


@pytest.mark.slow
def test_one_photo_in_rows_of_four_and_several_in_a_row_each(run, styles, photos, tmp_path):
    files = [photos / "a" / "001.png", photos / "a" / "003.png"]  # 60 × 48 each
    command = ("-o", tmp_path / "sheet.png", "--models", *styles, "--device", "cpu")
    status, out, err = run("gallery", files[0], *command)
    assert (status, err) == (0, "") and out == f"{tmp_path / 'sheet.png'} (photos: 1, styles: 5)\n"
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (4 * 66 + 6, 2 * (48 + LINE) + 3 * 6)
        result = sheet.crop((72, 6 + LINE, 72 + 60, 6 + LINE + 48))
    expected = perceptual.load(styles[0], "cpu").stylize(files[0])
    assert np.array_equal(np.asarray(result), np.asarray(expected))
    assert run("gallery", *files, *command, "--size", 30)[0] == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (6 * 36 + 6, 2 * 24 + LINE + 3 * 6)


@pytest.mark.slow
def test_a_folder_is_all_images_in_it(run, styles, photos, tmp_path):
    count, sheet = len(list((photos / "a").iterdir())), tmp_path / "sheet.png"
    status, out, _ = run("gallery", photos / "a", "-o", sheet, "--models", styles[0], "--size", 16)
    assert (status, out) == (0, f"{sheet} (photos: {count}, styles: 1)\n")
    for name, message in (
        ("sheet.png", "would be photos when the command is repeated"),
        ("001.png", "would overwrite"),
    ):
        status, _, err = run("gallery", photos / "a", "-o", photos / "a" / name, "--models", styles[0])
        assert status == 1 and message in err and not (photos / "a" / "sheet.png").exists()


@pytest.mark.slow
def test_every_style_that_ships_is_the_default(run, photos, tmp_path):
    sheet = tmp_path / "sheet.jpg"
    status, out, _ = run("gallery", photos / "a" / "001.png", "-o", sheet, "--size", 16)
    assert (status, out) == (0, f"{sheet} (photos: 1, styles: {len(styles_in(shipped_weights()['styles']))})\n")


@pytest.mark.slow
def test_bad_input_is_one_line(run, upscaler, styles, photos, tmp_path):
    photo = photos / "a" / "001.png"
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    (tmp_path / "none").mkdir()
    for arguments, message in [
        ((photo, "-o", tmp_path / "sheet.gif"), "the name of the sheet must end in .jpg"),
        ((photo, "-o", photo), "would overwrite a photo"),
        (("-", "-o", tmp_path / "s.png"), "- does not work here; name image files"),
        ((styles[0].parent / "none", "-o", tmp_path / "s.png"), "no images in"),
        ((photo, "-o", tmp_path / "s.png", "--models", upscaler), "these weights are for super-resolution"),
        ((photo, "-o", broken / "s.png"), "cannot be written to"),
        ((broken, "-o", tmp_path / "s.png", "--models", styles[0]), f"{broken}: this is not an image"),
    ]:
        status, out, err = run("gallery", *arguments)
        assert (status, out) == (1, "") and message in err and err.count("\n") == 1
    status, _, err = run("gallery", photo, "-o", tmp_path / "s.png", "--size", 3)
    assert status == 2 and "--size: expected a whole number of at least 16, got '3'" in err
    assert not (tmp_path / "s.png").exists()


@pytest.fixture
def script(monkeypatch):
    """The module behind ``make gallery``, which finds its neighbours as a script does."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    spec = importlib.util.spec_from_file_location("docs_gallery", ROOT / "docs/gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_log_of_several_trainings_is_one_curve(script):
    from curves import curves, read_log

    first = ["100/300  content 9  style 90  total", "200/300  content 8  style 80  total"]
    again = ["resumed", "150/300  content 7.5  style 75  total", "300/300  content 7e0  style 70  total"]
    longer = ["# from these weights", "100/400  content 6  style 60  total", "200/400  content 5  style 50  total"]
    expected = [[100, 150, 300, 400, 500], [9, 7.5, 7, 6, 5], [90, 75, 70, 60, 50]]
    np.testing.assert_equal(read_log("\n".join(first + again + longer)), expected)
    logs = {name: ROOT / f"docs/results/{name}/train.log" for name in ("styles", "styles_fast")}
    for name, log in logs.items():
        provenance = read_metadata(ROOT / f"models/{name}.safetensors")["provenance"]
        trainings = [*provenance["earlier_trainings"], provenance]
        logged = trainings[{"styles": 3, "styles_fast": 1}[name] :]  # before these, no log or other losses
        assert read_log(log.read_text())[0][-1] == sum(each["iterations"] for each in logged)
    log = logs["styles_fast"]
    drawn = curves([log])
    assert drawn == curves([log]) and drawn.count(b"styles_fast") == 1 and b"<svg" in drawn


@pytest.mark.slow
@pytest.mark.release
def test_make_gallery_makes_every_picture_of_the_documentation_but_animations(script, tmp_path, monkeypatch):
    log = Path("results/styles_fast/train.log")
    (tmp_path / log).parent.mkdir(parents=True)
    (tmp_path / log).write_bytes((ROOT / "docs" / log).read_bytes())
    small = []
    for photo in script.PHOTOS:
        small.append(tmp_path / "photos" / photo.name)
        small[-1].parent.mkdir(exist_ok=True)
        Image.open(photo).resize((48, 32)).save(small[-1])
    monkeypatch.setattr(script, "DOCS", tmp_path)
    monkeypatch.setattr(script, "PHOTOS", small)
    names = ("starry_night", "the_scream")
    network = StyleNetwork(init_features=4, num_residuals=0, styles=len(names))
    save_network(tmp_path / "many.safetensors", network, {"styles": [{"name": name} for name in names]})
    for constant in ("NETWORK", "FAST"):
        monkeypatch.setattr(script, constant, tmp_path / "many.safetensors")
    for constant in ("HEADING", "BOTH"):
        monkeypatch.setattr(script, constant, names)
    monkeypatch.setattr(script, "load", lambda file: perceptual.load(file, "cpu"))
    views = sys.modules[script.screenshots.__module__].VIEWS  # how they look, chromium shows in a test of its own
    monkeypatch.setattr(script, "screenshots", lambda: ((name, Image.new("RGB", (8, 8))) for name in views))
    script.main()
    made = {
        file.relative_to(tmp_path) for folder in ("pictures", "results") for file in (tmp_path / folder).rglob("*.*")
    }
    sheets = ("gallery", "styles", "styles_fast", *(f"super_resolution_x{scale}" for scale in SCALES), *views)
    tracked = {Path(f"pictures/{name}.jpg") for name in sheets}
    tracked |= {Path("pictures/losses.svg"), log, *(Path(f"results/styles/{name}.jpg") for name in names)}
    assert made == tracked and all((ROOT / "docs" / file).is_file() for file in made)
