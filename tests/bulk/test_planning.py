import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perceptual.bulk.job import Job, read_files
from perceptual.bulk.origins import Origin, known, note
from perceptual.bulk.places import Place
from perceptual.bulk.planning import divide, find_tasks
from perceptual.errors import InputError, InvalidOption
from perceptual.options import StyleOptions


def tasks_of(*inputs, output, format=None):
    tasks, others = find_tasks([Place.at(str(each)) for each in inputs], Place.at(str(output)), format)
    return {str(task.photo): str(task.result) for task in tasks}, [each.name for each in others]


def begin(*inputs, output, notes=b"{}"):
    """What a job does before its first result; returns its plan."""
    output = Place.at(str(output))
    plan = divide(*find_tasks([Place.at(str(each)) for each in inputs], output, None), output, known(output, notes))
    note(output, plan.origins, notes)
    return plan


def results(tasks):
    return [str(task.result) for task in tasks]


def aged(file, second):
    """Creates a file that was changed so many seconds after 1970."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    os.utime(file, (second, second))
    return file


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
    for name, second in {"a.jpg": 200, "deep/b.jpg": 90, ".a.jpg.77.tmp": 1, ".mine.77.tmp": 1}.items():
        aged(tmp_path / "out" / name, second)
    for photo in ("a.png", "deep/b.TIFF"):
        aged(folder / photo, 100)
    tasks, others = find_tasks([Place.at(str(folder))], output, None)

    def divided(since):
        photos = {"a.jpg": folder / "a.png", "deep/b.jpg": folder / "deep/b.TIFF"}
        made = {name: Origin(os.path.realpath(photo), since * 10**9) for name, photo in photos.items()}
        return divide(tasks, others, output, made)

    plan = divided(since=150)
    assert results(plan.missing) == ["deep/b.jpg"]
    assert results(plan.kept) == ["a.jpg"]
    assert plan.unfinished == [str(tmp_path / "out/.a.jpg.77.tmp")]  # not what others left
    assert not divided(since=201).kept


def test_how_results_are_made_is_noted_once(weights, folder, tmp_path):
    output = Place.at(str(tmp_path / "out"))
    job = Job(read_files(str(weights)), StyleOptions(), None, "auto", 1)
    begin(folder, output=output.path, notes=job.notes())
    made = known(output, job.notes())
    begin(folder, output=output.path, notes=job.notes())
    assert known(output, job.notes()) == made and all(origin.since for origin in made.values())
    other = Job(job.weights, StyleOptions(strength=0.5), None, "auto", 1)
    assert not known(output, other.notes())
    begin(folder, output=output.path, notes=other.notes())
    assert all(origin.since > made[name].since for name, origin in known(output, other.notes()).items())
    assert json.loads((tmp_path / "out/bulk.json").read_text())["options"]["strength"] == 0.5


def test_results_are_kept_only_for_the_photo_they_were_made_of(tmp_path):
    for name in ("A/x.jpg", "B/x.jpg", "B/y.jpg"):
        aged(tmp_path / name, 100)
    photos, output = tmp_path / "list.txt", tmp_path / "out"
    photos.write_text("A/x.jpg\n")
    assert results(begin(photos, output=output).missing) == ["x.jpg"]
    (output / "x.jpg").touch()  # and the job is killed, before its report
    assert results(begin(photos, output=output).kept) == ["x.jpg"]

    time.sleep(0.02)  # a tick of the clock of files
    photos.write_text("B/x.jpg\n")
    for _ in range(2):  # killed before its first result, or as B/x.jpg cannot be read
        assert results(begin(photos, output=output).missing) == ["x.jpg"]
    (output / "x.jpg").touch()
    assert results(begin(photos, output=output).kept) == ["x.jpg"]
    time.sleep(0.02)
    photos.write_text("A/x.jpg\n")
    assert results(begin(photos, output=output).missing) == ["x.jpg"]


def test_another_photo_of_the_same_name_is_another_photo(folder, tmp_path):
    begin(folder, output=tmp_path / "out")
    (tmp_path / "out/a.jpg").touch()
    (folder / "a.png").unlink()
    aged(folder / "a.gif", 100)
    assert "a.jpg" in results(begin(folder, output=tmp_path / "out").missing)


def test_a_further_input_leaves_the_results_of_others(folder, tmp_path):
    output = tmp_path / "out"
    begin(folder, output=output)
    (output / "deep").mkdir()
    for name in ("a.jpg", "deep/b.jpg"):
        (output / name).touch()
    further = aged(tmp_path / "further/c.jpg", 100)
    plan = begin(folder, further, output=output)
    assert (results(plan.missing), results(plan.kept)) == (["c.jpg"], ["a.jpg", "deep/b.jpg"])
    (output / "c.jpg").touch()
    assert results(begin(further.parent, output=output).kept) == ["c.jpg"]
    assert results(begin(folder, output=output).kept) == ["a.jpg", "deep/b.jpg"]


def test_a_job_that_does_not_begin_leaves_all_results_valid(run, weights, folder, tmp_path):
    output = tmp_path / "out"
    begin(folder, output=output)
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in output.iterdir()}
    nowhere = ("--strength", "0.5", "--address", "127.0.0.1:9")
    status, out, err = run("bulk", folder, output, "--model", weights, *nowhere)
    assert (status, out) == (1, "") and err.startswith("perceptual: there is no Ray cluster at ")
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in output.iterdir()} == before


def test_a_second_job_does_not_touch_what_the_first_writes(run, weights, folder, tmp_path):
    unfinished = aged(tmp_path / "out/.a.jpg.77.tmp", 1)
    hold = "import sys; from perceptual.bulk.origins import *\nwith alone(Place.at(sys.argv[1])): print(), input()"
    bulk = ("bulk", folder, tmp_path / "out", "--model", weights, "--address", "127.0.0.1:9")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-uc", hold, str(tmp_path / "out")], **pipes) as first:
        assert first.stdout.readline() == "\n"
        wanted = f"perceptual: {tmp_path / 'out'}: another job writes there; wait for its end\n"
        assert run(*bulk) == (1, "", wanted)
        assert unfinished.exists()
        first.communicate("\n")
    assert "there is no Ray cluster" in run(*bulk)[2]
    assert not (tmp_path / "out/bulk.lock").exists()


def test_an_original_is_not_overwritten_through_a_link(tmp_path):
    original = aged(tmp_path / "store/a.jpg", 100)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").symlink_to("../store/a.jpg")
    with pytest.raises(InvalidOption, match=f"{original} would overwrite a photo"):
        tasks_of(tmp_path / "photos", output=original.parent)
    aged(tmp_path / "in/b.jpg", 100)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b.jpg").symlink_to("../in/b.jpg")
    with pytest.raises(InvalidOption, match="would overwrite a photo"):
        tasks_of(tmp_path / "in", output=tmp_path / "out")


def test_results_among_the_photos_are_refused(folder, tmp_path):
    (tmp_path / "linked").symlink_to("in")
    with pytest.raises(InvalidOption, match=f"^results in {folder}/deep would be photos "):
        tasks_of(folder / "deep", folder / "a.png", output=folder / "deep")
    for output in (folder / "out", folder / "deep/er", folder, tmp_path / "linked/out"):
        with pytest.raises(InvalidOption, match="would be photos when the job is repeated; choose another output"):
            tasks_of(folder, output=output)
    assert tasks_of(folder / "a.png", output=folder / "out")[0] == {str(folder / "a.png"): "a.jpg"}
    assert tasks_of(folder, output=tmp_path / "in2")[0]
    assert tasks_of(folder / "deep", output=folder)[0] == {str(folder / "deep/b.TIFF"): "b.jpg"}


def test_links_are_followed_as_by_stylize(folder, tmp_path):
    from perceptual.commands.photos import others_below, plan

    aged(tmp_path / "elsewhere/c.jpg", 100)
    links = {"self": ".", "linked": "../elsewhere", "c.jpg": "../elsewhere/c.jpg", "broken.jpg": "nowhere"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    names, others = tasks_of(folder, output=tmp_path / "out")
    jobs = plan([folder], tmp_path / "out", None)
    assert [(Path(photo), tmp_path / "out" / name) for photo, name in names.items()] == [job[:2] for job in jobs]
    assert list(names.values()) == ["a.jpg", "c.jpg", "deep/b.jpg"]
    assert others == [file.name for file in others_below([folder])]


def test_results_in_a_linked_folder_are_found(folder, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/deep").symlink_to("../disk")
    begin(folder, output=tmp_path / "out")
    (tmp_path / "disk/b.jpg").touch()
    assert results(begin(folder, output=tmp_path / "out").kept) == ["deep/b.jpg"]


def test_names_in_lists_are_whole(tmp_path):
    names = ("a#1.jpg", "a?1.jpg", "a.jpg?width=100", "what?.jpg?width=100")
    for name in names:
        aged(tmp_path / "in" / name, 100)
    lines = [f"file://{tmp_path}/in/{name}" for name in names]
    for encoding in ("utf-8", "utf-8-sig"):  # the latter as Notepad writes it
        (tmp_path / "list.txt").write_text("\n".join([f"in/{names[0]}", *lines[1:]]), encoding)
        tasks, _ = find_tasks([Place.at(str(tmp_path / "list.txt"))], Place.at(str(tmp_path / "out")), None)
        assert {task.photo.path: task.photo.changed for task in tasks} == {
            str(tmp_path / "in" / name): 100 * 10**9 for name in names
        }
    (tmp_path / "list.txt").write_text("\n".join(lines))
    assert list(tasks_of(tmp_path / "list.txt", output=tmp_path / "out")[0]) == [
        str(tmp_path / "in" / name) for name in names
    ]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("s3a://AKIAKEY:SECRET@bucket/x", "s3a://bucket/x: Unrecognized filesystem type in URI: s3a://bucket/"),
        ("s3://AKIAKEY:SEC/RET@bucket/x?bad=1", "s3://bucket/x: Unexpected query parameter in S3 URI: 'bad'"),
        ("s3://AKIAKEY:7/RET@bucket/a@2x.jpg?bad=1", "s3://bucket/a@2x.jpg: Unexpected query parameter"),
        ("s3://AKIAKEY:SEC RET@bucket/x", "s3://bucket/x: Cannot parse URI: 's3://bucket/' due to"),
        ("s3://AKIAKEY:SEC@RET@bucket/x", "s3://bucket/x: Cannot parse URI: 's3://bucket/' due to"),
        (
            "file://AKIAKEY:SECRET@host/x",
            "file://host/x: Unsupported username or password in local URI: 'file://host/'",
        ),
        ("s3://[bad/x", "s3://[bad/x: Cannot parse URI: 's3://[bad/' due to"),
    ],
)
def test_a_key_in_an_address_is_not_shown(run, weights, folder, address, shown):
    for arguments in ((address, folder), (folder, address)):
        status, out, err = run("bulk", *arguments, "--model", weights)
        assert (status, out) == (1, "") and err.startswith(f"perceptual: {shown}") and err.count("\n") == 1
        assert not any(part in err for part in ("AKIA", "SEC", "RET"))


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
