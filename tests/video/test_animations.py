"""Animated images and folders of images, in and out."""

import shutil
import threading

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from video_files import make_clip, pictures, shown, times_of

from perceptual.errors import InvalidOption, InvalidVideo
from perceptual.files import images_below
from perceptual.inference.images import Picture, from_pil
from perceptual.video.clips import open_clip

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


@pytest.mark.parametrize("ending", ["gif", "png", "webp"])
def test_equal_frames_at_the_end_last_as_long_as_before(convert, tmp_path, ending):
    first, *others = map(drawn, range(5))
    first.save(tmp_path / "in.png", save_all=True, append_images=others, duration=100)
    made = (from_pil(drawn(min(index, 2))) for index in range(5))
    report = convert(tmp_path / "in.png", tmp_path / f"out.{ending}", lambda given: [next(made) for _ in given])
    assert report.frames == 5
    assert sum(duration for _, duration, _ in frames_of(tmp_path / f"out.{ending}")) == 500


def test_a_picture_for_programs_without_animations_is_no_frame(convert, tmp_path):
    shown_elsewhere, *others = map(drawn, range(4))
    shown_elsewhere.save(
        tmp_path / "in.png", save_all=True, append_images=others, duration=DURATIONS[1:], default_image=True
    )
    report = convert(tmp_path / "in.png", tmp_path / "out.png")
    out = list(frames_of(report.path))
    assert report.frames == 3 and [duration for _, duration, _ in out] == DURATIONS[1:]
    assert all(np.array_equal(image, each) for (image, _, _), each in zip(out, others, strict=True))


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


@pytest.mark.parametrize("ending", ["mp4", "mkv", "gif", "webp", "png"])
def test_images_of_several_sizes_are_not_distorted(convert, tmp_path, ending):
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, size in enumerate([(64, 48), (64, 48), (48, 64)]):
        Image.new("RGB", size).save(folder / f"{index}.png")
    with pytest.raises(InvalidVideo, match="the first has 64 × 48 pixels, one has 48 × 64"):
        convert(folder, tmp_path / f"out.{ending}")
    assert not (tmp_path / f"out.{ending}").exists()
    assert convert(folder, tmp_path / "copies").frames == 3


def test_a_video_becomes_a_folder_that_can_be_gone_on_with(convert, tmp_path):
    source = make_clip(tmp_path / "in.mp4")

    def fail(pictures):
        if len(images_below(tmp_path / "out.part")) >= 5:  # several may be written between two batches
            raise RuntimeError("power cut")
        return list(pictures)

    with pytest.raises(RuntimeError):
        convert(source, tmp_path / "out", transform=fail)
    left = len(images_below(tmp_path / "out.part"))
    assert left >= 5
    report = convert(source, tmp_path / "out", resume=True)
    assert report.frames == len(images_below(tmp_path / "out")) == 26
    assert all(torch.equal(a, b) for a, b in zip(shown(source), shown(tmp_path / "out"), strict=True))


def test_a_folder_with_odd_digits_in_its_names_is_read(convert, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for name in ("x2³4.png", "x10.png", "x٣.png"):  # a power, and an Arabic three
        Image.new("RGB", (32, 32)).save(folder / name)
    convert(folder, tmp_path / "out")
    with open_clip(folder) as clip:
        assert [each.name for each in clip.files] == ["x2³4.png", "x٣.png", "x10.png"]


@pytest.fixture
def stopped(convert, tmp_path):
    """A source of eight frames, and a run into the folder ``out`` that was stopped after three."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, frame in enumerate(pictures(8)):
        Image.fromarray(frame).save(folder / f"{index}.png")
    stop = threading.Event()
    report = convert(
        folder, tmp_path / "out", stop=stop, progress=lambda frames, total: stop.set() if frames == 3 else None
    )
    assert report.stopped and len(images_below(tmp_path / "out.part")) == 3
    return folder


def dark(pictures):
    return [Picture(torch.zeros_like(each.rgb)) for each in pictures]


def test_a_folder_made_without_resume_has_nothing_of_an_earlier_run(convert, stopped, tmp_path):
    (stopped / "0.png").unlink()
    convert(stopped, tmp_path / "out", transform=dark)
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == [f"{index}.png" for index in range(1, 8)]
    assert all(each.max() == 0 for each in shown(tmp_path / "out"))


def test_a_folder_is_only_gone_on_with_if_the_frames_and_the_options_are_the_same(convert, stopped, tmp_path):
    with pytest.raises(InvalidOption, match="out.part: made from another file or with other options"):
        convert(stopped, tmp_path / "out", resume=True, strength=0.5)
    seen = []
    frame = (stopped / "1.png").read_bytes()
    for changed in (frame + b"more", frame):  # the second has another time
        (stopped / "1.png").write_bytes(changed)
        with pytest.raises(InvalidOption, match="out.part: made from another file or with other options"):
            convert(stopped, tmp_path / "out", transform=seen.extend, resume=True)
    assert not seen and len(images_below(tmp_path / "out.part")) == 3


def test_a_video_of_other_frames_is_not_gone_on_with(convert, stopped, tmp_path):
    stop = threading.Event()
    convert(stopped, tmp_path / "out.mp4", stop=stop, progress=lambda frames, total: stop.set())
    (stopped / "7.png").unlink()
    with pytest.raises(InvalidOption, match="made from another file or with other options"):
        convert(stopped, tmp_path / "out.mp4", resume=True)


def test_what_is_not_of_an_earlier_run_is_kept(convert, stopped, tmp_path):
    stranger = tmp_path / "other.part" / "holiday.png"
    stranger.parent.mkdir()
    shutil.copy(stopped / "0.png", stranger)
    for resume in (False, True):
        with pytest.raises(InvalidOption, match="other.part: is not a partial result of this version"):
            convert(stopped, tmp_path / "other", resume=resume)
    assert [each.name for each in stranger.parent.iterdir()] == ["holiday.png"]
    frames = stopped.rename(tmp_path / "frames.part")
    with pytest.raises(InvalidOption, match="frames.part would overwrite the video"):
        convert(frames, tmp_path / "frames")
    with pytest.raises(InvalidOption, match="0.png would overwrite the video"):
        convert(frames, frames / "0.png")
    assert len(images_below(frames)) == 8


def test_an_animation_larger_than_its_format_is_a_sentence(convert, tmp_path):
    (tmp_path / "frames").mkdir()
    Image.new("RGB", (16_384, 2)).save(tmp_path / "frames" / "0.png")
    with pytest.raises(InvalidOption, match="out.webp: .webp cannot hold pictures of 16384 × 2 pixels"):
        convert(tmp_path / "frames", tmp_path / "out.webp")
    assert not list(tmp_path.glob("out*"))


def test_a_folder_without_images_and_a_damaged_animation_are_said(convert, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidVideo, match="no images in this folder"):
        convert(tmp_path / "empty", tmp_path / "out.mp4")
    (tmp_path / "in.gif").write_bytes(b"no gif")
    with pytest.raises(InvalidVideo, match="in.gif: this is not a GIF, PNG or WebP"):
        convert(tmp_path / "in.gif", tmp_path / "out.mp4")
