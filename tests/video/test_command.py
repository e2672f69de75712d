"""The command, and Python's functions, with a network."""

import numpy as np
import pytest
from PIL import Image
from video_files import make_clip, pictures, shown, times_of

import perceptual
from perceptual.errors import InvalidOption, WeightsError

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
