"""Where the results of several photos go, and what is told of them."""

import signal

import pytest
from PIL import Image

from perceptual.commands.photos import plan
from perceptual.errors import InvalidOption
from perceptual.inference.predictor import Predictor


@pytest.fixture
def holiday(tmp_path):
    """Two photos in a folder, and one below it."""
    for name in ("a.jpg", "b.png", "deep/c.png"):
        (tmp_path / "holiday" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 12)).save(tmp_path / "holiday" / name)
    return tmp_path / "holiday"


def results(photos, output, format=None):
    """Names of results in a folder, by the name of the photo."""
    return {job.source.name: job.target.relative_to(output).as_posix() for job in plan(photos, output, format)}


def test_results_among_the_photos_are_refused(holiday, tmp_path):
    (tmp_path / "linked").symlink_to("holiday")
    for photos, output in (
        (holiday, holiday / "deep" / "results"),
        (tmp_path / "linked", holiday / "new"),
        (holiday, tmp_path / "linked" / "new"),
    ):
        with pytest.raises(InvalidOption, match="would be photos when the command is repeated"):
            plan([photos], output, None)
    with pytest.raises(InvalidOption, match="would be photos when the command is repeated"):
        plan([holiday / "deep"], holiday / "deep", None)
    Image.new("RGB", (16, 12)).save(holiday / "deep/a.jpg")
    with pytest.raises(InvalidOption, match="deep/a.jpg would overwrite a photo"):
        plan([holiday], holiday / "deep", None)
    assert len(plan([holiday / "deep"], holiday, None)) == 2  # beside the folder of photos


def test_a_photo_that_joins_another_of_its_name_leaves_no_result_behind(holiday, tmp_path):
    output = tmp_path / "out"
    assert results([holiday], output)["a.jpg"] == "a.jpg"
    Image.new("RGB", (16, 12)).save(holiday / "a.png")
    Image.new("RGB", (16, 12)).save(holiday / "a.JPG", "JPEG")
    joined = results([holiday], output)
    assert [joined[name] for name in ("a.jpg", "a.png", "a.JPG")] == ["a.jpg", "a.png.jpg", "a.JPG.jpg"]
    assert results([holiday], output, "png")["a.png"] == "a.png"


def test_how_results_are_named_is_in_the_help(run):
    for command in ("stylize", "upscale"):
        assert "a.png.jpg if there are also other photos a.*" in " ".join(run(command, "--help")[1].split())


def test_a_name_that_ends_in_a_slash_is_a_folder(run, weights, holiday, tmp_path):
    for name in ("out.v2", "out.jpg"):
        assert run("stylize", holiday / "a.jpg", "--model", weights, "-o", f"{tmp_path / name}/")[0] == 0
        assert (tmp_path / name / "a.jpg").is_file()
    status, _, err = run("stylize", holiday / "b.png", "--model", weights, "-o", f"{holiday / 'a.jpg'}/")
    assert status == 1 and "cannot be written to; choose another --output" in err
    assert "no folder" in run("stylize", "-", "--model", weights, "-o", f"{tmp_path / 'new'}/")[2]


def test_ctrl_c_tells_how_many_photos_are_done(run, weights, holiday, tmp_path, monkeypatch):
    stylize, output = Predictor.stylize_pictures, tmp_path / "out"

    def interrupted(*arguments):
        if (output / "b.jpg").exists():
            signal.raise_signal(signal.SIGINT)
        return stylize(*arguments)

    monkeypatch.setattr(Predictor, "stylize_pictures", interrupted)
    command = ("stylize", holiday, "--model", weights, "-o", output)
    assert run(*command) == (130, f"2 of 3 photos stylized, in {output}; stopped\n", "")
    assert sorted(file.name for file in output.rglob("*")) == ["a.jpg", "b.jpg"]
    (holiday / "a.jpg").write_bytes(b"no image")
    (output / "b.jpg").unlink()
    status, out, err = run(*command)
    assert (status, err.count("\n")) == (130, 1) and out == f"1 of 3 photos stylized, in {output}; stopped\n"


@pytest.mark.parametrize("name", ["Starry_Night", "starry night", "STARRY-NIGHT", "starry_nigth"])
def test_a_mistyped_style_is_answered_with_the_one_meant(run, holiday, tmp_path, name):
    status, _, err = run("stylize", holiday, "--style", name, "-o", tmp_path / "out")
    assert status == 1
    for line in err.splitlines():
        assert f": there is no style '{name}' here; did you mean starry_night? The styles are: " in line
