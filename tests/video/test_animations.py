"""Animated images and folders of images, in and out."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from video_files import make_clip, pictures, shown, times_of

from perceptual.errors import InvalidOption, InvalidVideo
from perceptual.files import images_below

DURATIONS = [70, 130, 200, 40]  # ms


def drawn(index):
    """A picture on a transparent ground."""
    image = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle((4 + 5 * index, 5, 14 + 5 * index, 20), fill=(200, 60, 30, 255))
    return image


@pytest.fixture(params=["gif", "png", "webp"])
def animation(request, tmp_path):
    first, *others = map(drawn, range(4))
    options = {"lossless": True} if request.param == "webp" else {"disposal": 2}
    path = tmp_path / f"in.{request.param}"
    first.save(path, save_all=True, append_images=others, duration=DURATIONS, loop=3, **options)
    return path


def frames_of(path):
    with Image.open(path) as image:
        for index in range(image.n_frames):
            image.seek(index)
            yield image.convert("RGBA"), round(image.info["duration"]), image.info.get("loop")


@pytest.mark.parametrize("ending", ["gif", "png", "webp"])
def test_animations_keep_pictures_times_alpha_and_plays(convert, animation, tmp_path, ending):
    report = convert(animation, tmp_path / f"out.{ending}", quality=100)
    out = list(frames_of(report.path))
    assert [duration for _, duration, _ in out] == DURATIONS
    plays = 4 if animation.suffix == ".gif" else 3
    assert out[0][2] == (plays - 1 if ending == "gif" else plays)
    for index, (image, _, _) in enumerate(out):
        alpha, expected = np.asarray(image)[..., 3], np.asarray(drawn(index))[..., 3]
        assert np.array_equal(alpha > 128, expected > 128)
        assert np.abs(np.asarray(image)[expected > 0].astype(int) - (200, 60, 30, 255)).mean() < 6


def test_an_animation_becomes_a_video_on_white(convert, animation, tmp_path):
    convert(animation, tmp_path / "out.mp4")
    assert times_of(tmp_path / "out.mp4") == pytest.approx([0, 0.07, 0.2, 0.4], abs=1e-4)
    assert shown(tmp_path / "out.mp4")[0][:, 0, 0].min() > 240


def test_a_gif_of_a_fast_video_is_as_fast(convert, tmp_path):
    source = make_clip(tmp_path / "in.mp4", list(pictures(30)), times=[index / 2 for index in range(30)], sound=None)
    convert(source, tmp_path / "out.gif")
    durations = [duration for _, duration, _ in frames_of(tmp_path / "out.gif")]
    assert min(durations) >= 20 and sum(durations) == pytest.approx(500, abs=20)


def test_a_folder_of_frames_keeps_order_and_names(convert, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    frames = list(pictures(11))
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"shot_{index}.png")
    convert(folder, tmp_path / "out.mp4", fps=12.5)
    assert times_of(tmp_path / "out.mp4") == pytest.approx([index / 12.5 for index in range(11)])
    convert(folder, tmp_path / "copies")
    for index, frame in enumerate(frames):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "copies" / f"shot_{index}.png")), frame)
    with pytest.raises(InvalidOption, match="is not empty"):
        convert(folder, tmp_path / "copies")


def test_a_video_becomes_a_folder_that_can_be_gone_on_with(convert, tmp_path):
    source = make_clip(tmp_path / "in.mp4")

    def fail(pictures):
        if len(images_below(tmp_path / "out.part")) == 5:
            raise RuntimeError("power cut")
        return list(pictures)

    with pytest.raises(RuntimeError):
        convert(source, tmp_path / "out", transform=fail)
    left = len(images_below(tmp_path / "out.part"))
    assert left >= 5
    report = convert(source, tmp_path / "out", resume=True)
    assert report.frames == len(images_below(tmp_path / "out")) == 26
    assert all(torch.equal(a, b) for a, b in zip(shown(source), shown(tmp_path / "out"), strict=True))


def test_a_folder_without_images_and_a_damaged_animation_are_said(convert, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidVideo, match="no images in this folder"):
        convert(tmp_path / "empty", tmp_path / "out.mp4")
    (tmp_path / "in.gif").write_bytes(b"no gif")
    with pytest.raises(InvalidVideo, match="in.gif: this is not a GIF, PNG or WebP"):
        convert(tmp_path / "in.gif", tmp_path / "out.mp4")
