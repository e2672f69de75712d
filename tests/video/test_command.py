"""The command, and Python's functions, with a network."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from video_files import make_clip, pictures, shown, times_of

import perceptual
from perceptual.commands.video import print_outcome
from perceptual.errors import InvalidOption, WeightsError
from perceptual.files import WHEN_FULL
from perceptual.video import conversion
from perceptual.video.conversion import VideoReport
from perceptual.video.steady import Steady

pytestmark = pytest.mark.slow  # encodes and decodes clips


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    return make_clip(path, list(pictures(5, 50, 38)), times=range(5), codec="ffv1", pix_fmt="bgr0", options={})


def test_every_frame_is_what_the_predictor_makes_of_it(run, clip, weights, predictor, tmp_path):
    arguments = ("--codec", "ffv1", "--strength", "0.8", "--steady", "off", "--engine", "eager")
    status, output, errors = run("video", clip, "--model", weights, "-o", tmp_path / "out.mkv", *arguments)
    assert (status, errors) == (0, "") and output == f"5 frames, in {tmp_path / 'out.mkv'}\n"
    assert times_of(tmp_path / "out.mkv") == times_of(clip)
    for out, frame in zip(shown(tmp_path / "out.mkv"), pictures(5, 50, 38), strict=True):
        expected = predictor.stylize(Image.fromarray(frame), strength=0.8)
        assert np.array_equal(out.permute(1, 2, 0), np.asarray(expected))


def test_frames_get_grain_only_if_asked(clip, weights, tmp_path):
    network = perceptual.load(weights, "cpu", "eager")
    network.network.grain = 0.5
    for name, options, grain in (("none", {}, 0), ("half", {"grain": 0.5}, None)):
        target = tmp_path / f"{name}.mkv"
        perceptual.stylize_video(network, clip, target, steady="off", codec="ffv1", **options)
        for out, frame in zip(shown(target), pictures(5, 50, 38), strict=True):
            expected = network.stylize(Image.fromarray(frame), grain=grain)
            assert np.array_equal(out.permute(1, 2, 0), np.asarray(expected))
    none, half = (shown(tmp_path / f"{name}.mkv")[0] for name in ("none", "half"))
    assert not np.array_equal(none, half)


def test_enlarging_and_both_in_one_go(run, clip, weights, upscaler, tmp_path):
    status, _, errors = run("video", clip, "--model", upscaler, "-o", tmp_path / "large.mp4")
    assert (status, errors) == (0, "") and shown(tmp_path / "large.mp4")[0].shape == (3, 152, 200)
    networks = perceptual.load(weights, engine="eager"), perceptual.load(upscaler, engine="eager")
    report = perceptual.stylize_video(networks[0], clip, tmp_path / "both.mp4", enlarger=networks[1], max_size=25)
    assert report.frames == 5 and shown(tmp_path / "both.mp4")[0].shape == (3, 76, 100)
    with pytest.raises(WeightsError, match="for super-resolution, not for style"):
        perceptual.stylize_video(networks[1], clip, tmp_path / "wrong.mp4")
    with pytest.raises(InvalidOption, match="unknown option colour"):
        perceptual.upscale_video(networks[1], clip, tmp_path / "wrong.mp4", colour="red")


def test_several_clips_go_to_a_folder_past_a_bad_one(run, clip, weights, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    status, output, errors = run("video", bad, clip, "--model", weights, "-o", tmp_path / "out")
    assert status == 1 and errors.startswith(f"{bad}: this is not a video") and errors.count("\n") == 1
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["clip.mkv"] and "5 frames" in output
    status, _, errors = run("video", bad, clip, "--model", weights, "-o", tmp_path / "out.mp4")
    assert status == 1 and errors.endswith("out.mp4: several clips need a folder as --output\n")
    status, _, errors = run("video", clip, "-o", tmp_path / "out.mp4")
    assert status == 1 and "style is missing; the styles are:" in errors


def test_a_full_disk_ends_the_command_before_further_clips(run, clip, weights, small_disk, tmp_path):
    (small_disk / "other").write_bytes(bytes(60 << 10))
    clips = [Path(shutil.copy(clip, tmp_path / name)) for name in ("one.mkv", "two.mkv")]
    options = ("--model", weights, "--codec", "ffv1", "--engine", "eager", "-o", small_disk)
    status, output, errors = run("video", *clips, *options)
    reason = f"No space left on device; {WHEN_FULL}"
    assert (status, output, errors) == (1, "", f"perceptual: cannot write {small_disk / 'one.mkv'}: {reason}\n")


def test_a_result_without_a_name_or_of_a_size_that_the_codec_does_not_have_is_a_sentence(run, clip, weights, tmp_path):
    for output in (".", "/"):
        status, _, errors = run("video", clip, "--model", weights, "-o", output)
        assert status == 1 and f"{output}: name the result, such as" in errors and errors.count("\n") == 1
    status, _, errors = run(
        "video", clip, "--model", weights, "-o", tmp_path / "out.mp4", "--codec", "hevc", "--max-size", "16"
    )
    assert (status, errors) == (1, f"{clip}: codec: hevc cannot encode pictures of 16 × 12 pixels\n")


@pytest.mark.parametrize("ending", [".gif", ".mp4"])
def test_a_format_that_the_result_s_ending_sets_is_refused(run, clip, weights, tmp_path, ending):
    output = tmp_path / f"out{ending}"
    status, _, errors = run("video", clip, "--model", weights, "-o", output, "--format", "webp")
    message = f"{clip}: format is for a folder of images; the ending of {output} says the format\n"
    assert (status, errors, output.exists()) == (1, message, False)


def test_options_that_no_network_uses_are_refused(run, clip, weights, upscaler, tmp_path):
    for name, options in (
        ("style", ("--style", "udnie")),
        ("max-size", ("--max-size", 32)),
        ("steady", ("--steady", "off")),
    ):
        status, _, errors = run(
            "video", clip, "--model", upscaler, *options, "--codec", "hevc", "-o", tmp_path / "out.mp4"
        )
        assert (status, errors) == (
            1,
            f"perceptual: {name}: not an option of super-resolution, which {upscaler} is for\n",
        )
    status, _, errors = run("video", clip, "--model", weights, "--fidelity", 1, "-o", tmp_path / "out.mp4")
    assert (status, errors) == (1, f"perceptual: fidelity: not an option of style, which {weights} is for\n")
    status, _, errors = run("video", clip, "--scale", 2, "--strength", 0.5, "-o", tmp_path / "out.mp4")
    assert status == 1 and "strength: not an option of super-resolution, which super_resolution_x2 is for" in errors


def test_options_that_no_network_uses_are_refused_in_python_too(clip, weights, upscaler, tmp_path):
    target = tmp_path / "out.mp4"
    with pytest.raises(InvalidOption, match="^style: not an option of super-resolution, which this network is for$"):
        perceptual.upscale_video(perceptual.load(upscaler, "cpu"), clip, target, style="udnie", crf=20)
    with pytest.raises(InvalidOption, match="^fidelity: not an option of style, which this network is for$"):
        perceptual.stylize_video(perceptual.load(weights, "cpu"), clip, target, fidelity=1, steady=None)
    assert not list(tmp_path.glob("out*"))


def test_a_scale_that_the_networks_do_not_have_is_refused(clip, weights, upscaler, tmp_path):
    networks, target = (perceptual.load(weights, "cpu"), perceptual.load(upscaler, "cpu")), tmp_path / "out.mp4"
    with pytest.raises(InvalidOption, match="^scale: this network does not enlarge; give a super-resolution network"):
        perceptual.stylize_video(networks[0], clip, target, scale=4)
    with pytest.raises(InvalidOption, match="^scale: this network enlarges 4 times, not 8$"):
        perceptual.stylize_video(networks[0], clip, target, enlarger=networks[1], scale=8)
    with pytest.raises(InvalidOption, match="^scale: this network enlarges 4 times, not 8$"):
        perceptual.upscale_video(networks[1], clip, target, scale=8)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("size", [50, 25])  # of the longer side
def test_frames_are_steadied_before_they_are_enlarged(clip, weights, upscaler, tmp_path, monkeypatch, size):
    networks, steadied = (perceptual.load(weights, "cpu", "eager"), perceptual.load(upscaler, "cpu", "eager")), []

    class Watched(Steady):
        def steadied(self, frame, styled):
            steadied.append(tuple(styled.rgb.shape))
            return super().steadied(frame, styled)

        def begin(self, frame, styled):
            steadied.append(("begun", *styled.rgb.shape))
            super().begin(frame, styled)

    monkeypatch.setattr(conversion, "Steady", Watched)
    stop, options = threading.Event(), {"enlarger": networks[1], "max_size": size}
    shape = (3, round(size * 38 / 50), size)
    perceptual.stylize_video(networks[0], clip, tmp_path / "out", stop=stop, progress=lambda *_: stop.set(), **options)
    assert set(steadied) == {shape}
    steadied.clear()
    perceptual.stylize_video(networks[0], clip, tmp_path / "out", resume=True, **options)
    assert steadied == [("begun", *shape)] + 4 * [shape]
    assert shown(tmp_path / "out")[0].shape == (3, 4 * shape[1], 4 * shape[2])


def test_resuming_several_clips_leaves_those_that_are_complete(run, clip, weights, tmp_path):
    other = Path(shutil.copy(clip, tmp_path / "other.mkv"))
    out = tmp_path / "out"
    command = ("video", clip, other, "--model", weights, "-o", out, "--engine", "eager")
    run("video", clip, "--model", weights, "-o", out / "clip.mkv", "--engine", "eager")
    made = (out / "clip.mkv").stat()
    status, output, errors = run(*command, "--resume")
    assert (status, errors) == (0, "") and (out / "clip.mkv").stat() == made
    assert output.splitlines() == [
        f"{out / 'clip.mkv'}: complete already; without --resume, it is made again",
        f"5 frames, in {out / 'other.mkv'}",
    ]
    (out / "clip.part.mkv").touch()  # of a second run
    assert f"5 frames, in {out / 'clip.mkv'}" in run(*command, "--resume")[1]


@pytest.mark.parametrize(
    ("ending", "hint"), [(".gif", ""), (".png", ""), (".webp", ""), (".mp4", "; --resume continues")]
)
def test_only_what_can_be_resumed_is_said_to_be(ending, hint, capsys):
    print_outcome(VideoReport(Path(f"out.part{ending}"), frames=3, stopped=True))
    assert capsys.readouterr().out == f"stopped after 3 frames, in out.part{ending}{hint}\n"
