import errno
import json
import os
from pathlib import Path

import pytest

from perceptual.bulk.job import Job, note_options, read_files
from perceptual.bulk.places import Place
from perceptual.bulk.planning import divide, find_tasks
from perceptual.errors import InputError, InvalidOption
from perceptual.options import StyleOptions


def tasks_of(*inputs, output, format=None):
    tasks, others = find_tasks([Place.at(str(each)) for each in inputs], Place.at(str(output)), format)
    return {str(task.photo): str(task.result) for task in tasks}, [each.name for each in others]


@pytest.fixture
def folder(tmp_path):
    for name in ("in/a.png", "in/deep/b.TIFF", "in/notes.txt", "in/._a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "in"


def test_results_have_mirrored_names_and_every_file_is_accounted_for(folder, tmp_path):
    results, others = tasks_of(folder, output=tmp_path / "out")
    assert results == {str(folder / "a.png"): "a.jpg", str(folder / "deep/b.TIFF"): "deep/b.jpg"}
    assert sorted(others) == ["._a.png", "notes.txt"]


def test_names_are_those_of_stylize(folder, tmp_path):
    from perceptual.commands.photos import plan

    (folder / "a.gif").touch()
    for format in (None, "png", "webp"):
        results, _ = tasks_of(folder, output=tmp_path / "out", format=format)
        assert [tmp_path / "out" / each for each in results.values()] == [
            job.target for job in plan([folder], tmp_path / "out", format)
        ]
    assert results[str(folder / "a.gif")] == "a.gif.webp"


def test_a_list_names_photos_from_its_own_folder_or_by_address(folder, tmp_path):
    (tmp_path / "list.txt").write_text(f"in/a.png\n\nfile://{folder}/deep/b.TIFF\nmissing.png\n")
    results, _ = tasks_of(tmp_path / "list.txt", output=tmp_path / "out")
    assert list(results.values()) == ["in/a.jpg", "missing.jpg", "in/deep/b.jpg"]


def test_what_a_list_names_above_its_folder_stays_in_the_output(folder, tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/list.txt").write_text(f"../in/a.png\nc.jpg\nfile://{folder}/../in/deep/b.TIFF\n")
    results, _ = tasks_of(tmp_path / "lists/list.txt", output=tmp_path / "out")
    assert list(results.values()) == ["in/a.jpg", "lists/c.jpg", "in/deep/b.jpg"]


def test_collisions_and_overwriting_are_refused(folder, tmp_path):
    with pytest.raises(InvalidOption, match="would overwrite a photo"):
        tasks_of(folder, output=folder, format="png")
    (tmp_path / "two").mkdir()
    (tmp_path / "two/a.png").touch()
    with pytest.raises(InvalidOption, match="would both become a.png.jpg"):
        tasks_of(folder / "a.png", tmp_path / "two/a.png", output=tmp_path / "out")
    (tmp_path / "none").mkdir()
    with pytest.raises(InvalidOption, match="no images in"):
        tasks_of(tmp_path / "none", output=tmp_path / "out")
    with pytest.raises(InputError, match=r"nowhere: there is no such file, folder or bucket"):
        tasks_of(tmp_path / "nowhere", output=tmp_path / "out")
    with pytest.raises(InputError, match="gopher://x/y: "):
        Place.at("gopher://x/y")


def test_what_is_newer_than_photo_and_options_is_kept(folder, tmp_path):
    output = Place.at(str(tmp_path / "out"))
    tasks, others = find_tasks([Place.at(str(folder))], output, None)
    for name, second in {"a.jpg": 200, "deep/b.jpg": 90, ".a.jpg.77.tmp": 1, ".mine.77.tmp": 1}.items():
        file = tmp_path / "out" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (second, second))
    for photo in ("a.png", "deep/b.TIFF"):
        os.utime(folder / photo, (100, 100))
    plan = divide(*find_tasks([Place.at(str(folder))], output, None), output, since=150 * 10**9)
    assert [str(each.result) for each in plan.missing] == ["deep/b.jpg"]
    assert [str(each.result) for each in plan.kept] == ["a.jpg"]
    assert plan.unfinished == [str(tmp_path / "out/.a.jpg.77.tmp")]  # not what others left
    assert not divide(tasks, others, output, since=201 * 10**9).kept


def test_how_results_are_made_is_noted_once(weights, tmp_path):
    inputs, output = [Place.at(str(tmp_path))], Place.at(str(tmp_path / "out"))
    job = Job(read_files(str(weights)), StyleOptions(), None, "auto", 1)
    since = note_options(output, job.notes(inputs))
    assert note_options(output, job.notes(inputs)) == since
    other = Job(job.weights, StyleOptions(strength=0.5), None, "auto", 1)
    assert note_options(output, other.notes(inputs)) > since
    assert json.loads((tmp_path / "out/bulk.json").read_text())["options"]["strength"] == 0.5


def test_an_option_of_another_task_is_one_sentence(run, weights, upscaler, tmp_path):
    def attempt(*options):
        status, out, err = run("bulk", tmp_path, tmp_path / "out", *options)
        assert status == 1 and not out and err.count("\n") == 1 and not (tmp_path / "out").exists()
        return err

    assert "keep-colors: not an option of super-resolution, which" in attempt("--model", upscaler, "--keep-colors")
    assert "low-frequencies: not an option of style" in attempt("--model", weights, "--low-frequencies")
    assert "does not enlarge 8 times" in attempt("--model", upscaler, "--scale", "8")
    assert "style is missing; the styles are:" in attempt()
    assert "neither a weights file nor" in attempt("--model", "nobody")
    assert "engine: expected" in attempt("--model", weights, "--engine", "steam")
    assert "there is no style 'x' here" in attempt("--model", weights, "--style", "x")
    assert "no images in" in attempt("--model", weights)


@pytest.mark.skipif(not Path("/sys/kernel").exists(), reason="there is no folder that nobody may write to")
def test_an_output_that_cannot_be_written_to_is_one_sentence(run, weights, photo, tmp_path):
    (tmp_path / "a.png").write_bytes(photo)
    status, out, err = run("bulk", tmp_path, "/sys/out", "--model", weights)
    assert (status, out) == (1, "")
    assert err in {f"perceptual: /sys/out: {os.strerror(code)}\n" for code in (errno.EPERM, errno.EACCES, errno.EROFS)}
