"""Strokes stay on the objects on which they are painted: measured on pans and zooms whose flow is known."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from video_files import make_clip, shown

import perceptual
from perceptual.inference.images import Picture
from perceptual.video.flow import Motion, MotionFinder, positions, warped
from perceptual.video.sinks import container
from perceptual.video.steady import LEVELS, Anchor, Steady

SIZE = 128


def clip(photos, affine):
    """Frames that look at a photo through a window, and the exact flow from each to the one before."""
    photo = np.asarray(Image.open(photos))
    columns, rows = np.meshgrid(np.arange(SIZE, dtype=np.float32), np.arange(SIZE, dtype=np.float32))
    windows = [affine(index) for index in range(6)]  # scale, left, top
    frames = [
        cv2.warpAffine(
            photo,
            np.float32([[scale, 0, left], [0, scale, top]]),
            (SIZE, SIZE),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        )
        for scale, left, top in windows
    ]
    flows = [
        np.stack([(s * columns + x - u) / t - columns, (s * rows + y - v) / t - rows], -1)
        for (t, u, v), (s, x, y) in pairwise(windows)
    ]
    return [torch.from_numpy(frame).permute(2, 0, 1).contiguous() for frame in frames], flows


def warping_error(pictures, flows):
    """Mean squared difference of pictures and the ones before, warped by the exact flow."""
    errors = []
    for (before, now), flow in zip(pairwise(pictures), flows, strict=True):
        x, y = positions(flow)
        inside = (x >= 0) & (y >= 0) & (x <= SIZE - 1) & (y <= SIZE - 1)
        there = warped(before.permute(1, 2, 0).float().numpy(), flow, cv2.INTER_CUBIC)
        errors.append(((now.permute(1, 2, 0).float().numpy() - there) ** 2)[inside].mean())
    return np.mean(errors)


PAN = lambda index: (1, 60 + 2.3 * index, 40 + 0.7 * index)  # noqa: E731
ZOOM = lambda index: (1.2 * 0.99**index, 60 + 0.6 * index, 40 + 0.6 * index)  # noqa: E731


def test_the_evaluation_s_error_is_small_for_the_clip_itself_and_large_for_noise(tmp_path):
    from perceptual_training.evaluation_settings import VideoEvaluationSettings
    from perceptual_training.video_evaluation import frames_of
    from perceptual_training.video_evaluation import warping_error as measured

    frames, _ = clip("docs/photos/chelsea.jpg", PAN)
    source = make_clip(tmp_path / "in.mkv", [each.permute(1, 2, 0).numpy() for each in frames], times=range(6))
    settings = VideoEvaluationSettings(model="x", clips=(source,), frames=5, max_size=96)
    taken = frames_of(source, settings)
    assert len(taken) == 5 and taken[0].rgb.shape == (3, 96, 96)
    noise = [Picture(torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8)) for _ in taken]
    assert measured(taken, taken) < 0.002 < 0.1 < measured(taken, noise)


@pytest.fixture(scope="module")
def network():
    return perceptual.load("styles_fast", device="cpu", engine="eager")


@pytest.mark.parametrize("affine", [PAN, ZOOM])
def test_the_warping_error_is_less_than_half(network, affine):
    from perceptual.options import StyleOptions

    frames, flows = clip("docs/photos/chelsea.jpg", affine)

    options = StyleOptions(style=(("starry_night", 1.0),), grain=0.0)  # as for videos

    def make(given):
        return network.stylize_pictures(given, [options] * len(given))

    alone = make([Picture(frame) for frame in frames])
    error = warping_error([each.rgb for each in alone], flows)
    for level in LEVELS.values():
        made = iter(alone)
        steady = Steady(lambda given, made=made: [next(made) for _ in given], level)
        pictures = [steady([Picture(frame)])[0].rgb for frame in frames]
        assert warping_error(pictures, flows) < error / 2
        contrast = [torch.stack([each.float() for each in given]).std() for given in (pictures, [a.rgb for a in alone])]
        assert contrast[0] > 0.95 * contrast[1]  # not by blurring


def test_the_motion_of_a_pan_is_found():
    frames, flows = clip("docs/photos/chelsea.jpg", PAN)
    finder = MotionFinder()
    assert finder(frames[0]) is None
    motion = finder(frames[1])
    inner = np.s_[16:-16, 16:-16]
    assert np.abs(motion.flow - flows[0])[inner].mean() < 0.25
    assert motion.seen[inner].mean() > 0.9 and not motion.is_cut


@pytest.mark.parametrize("size", [(12, 200), (8, 8), (15, 4000), (64, 4000)])
def test_low_frames_are_stylized_one_by_one(size):
    frames = [Picture(torch.randint(0, 256, (3, *size), dtype=torch.uint8)) for _ in range(3)]
    steady = Steady(list, LEVELS["strong"])
    for before, frame in pairwise(frames):
        steady([before])
        assert torch.equal(steady([frame])[0].rgb, frame.rgb)


@pytest.mark.parametrize("size", [(16, 200), (200, 16)])
def test_motion_is_found_in_the_lowest_frames_that_opencv_bears(size):
    finder = MotionFinder()
    frames = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    assert finder(frames[0]) is None
    assert finder(frames[1]).flow.shape == (*size, 2)


def test_a_pixel_has_the_strokes_of_one_picture_and_what_was_hidden_is_not_used_again():
    (frame, *_), _ = clip("docs/photos/chelsea.jpg", PAN)
    hidden = frame.clone()
    hidden[:, 40:80, 40:80] = 255 * torch.tensor([[0, 1], [1, 0]], dtype=torch.uint8).repeat(20, 20)
    anchor = Anchor(Picture(frame), Picture(frame))
    still = Motion(np.zeros((SIZE, SIZE, 2), np.float32), np.ones((SIZE, SIZE), np.float32))
    masks = []
    for each in (frame, hidden, frame):
        anchor.move(still)
        masks.append(anchor.still_visible(Picture(each), LEVELS["strong"].max_difference))
    assert all(set(np.unique(mask)) <= {0, 1} for mask in masks)  # not a mixture, which has less contrast
    assert masks[0][8:-8, 8:-8].all()
    assert not masks[1][44:76, 44:76].any() and masks[1][100:120, 100:120].all()
    assert np.array_equal(masks[1], masks[2])


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_what_appears_in_a_place_of_low_contrast_is_shown(level):
    noise = np.random.default_rng(0).normal(0, 1, (SIZE, SIZE)).astype(np.float32)
    skin = 120 + 60 * cv2.GaussianBlur(noise, (0, 0), 3)
    opened = skin.copy()
    opened[52:66, 50:74] -= 40  # such as a mouth
    before, after = (
        Picture(torch.from_numpy(each.astype(np.uint8)).expand(3, -1, -1).contiguous()) for each in (skin, opened)
    )
    anchor = Anchor(before, before)
    anchor.move(Motion(np.zeros((SIZE, SIZE, 2), np.float32), np.ones((SIZE, SIZE), np.float32)))
    used = anchor.still_visible(after, level.max_difference)
    assert not used[54:64, 54:70].any() and used[100:, 100:].all()


def test_a_cut_begins_anew():
    def frames(photo):
        return [Picture(frame) for frame in clip(photo, PAN)[0][:3]]

    scenes = frames("docs/photos/chelsea.jpg") + frames("docs/photos/china.jpg")
    shades = iter(range(0, 240, 40))
    steady = Steady(
        lambda given: [Picture(torch.full_like(each.rgb, next(shades))) for each in given], LEVELS["strong"]
    )
    made = steady(scenes)
    assert torch.equal(made[3].rgb, torch.full_like(made[3].rgb, 120))


@pytest.mark.parametrize(("name", "size"), [("out", SIZE), ("out.mp4", SIZE - 1)])  # a video's sides are made even
def test_a_run_that_is_gone_on_with_keeps_the_strokes(convert, tmp_path, monkeypatch, name, size):
    monkeypatch.setattr(container, "KEY_FRAMES", 1)
    frames = [each[:, :size, :size].permute(1, 2, 0).numpy() for each in clip("docs/photos/chelsea.jpg", PAN)[0]]
    source = make_clip(tmp_path / "in.mkv", frames, times=range(6), codec="ffv1", pix_fmt="bgr0", options={})
    paint = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, size, size), np.uint8)).expand(3, -1, -1)
    fresh = iter(range(100))

    def make(given):  # another painting for each frame
        return [Picture(paint.roll(37 * next(fresh), 2)) for _ in given]

    def stop_after_3(given):
        if next(count) == 3:
            raise RuntimeError("power cut")
        return make(given)

    count = iter(range(10))
    options = {} if name == "out" else {"crf": 1}
    with pytest.raises(RuntimeError):
        convert(source, tmp_path / name, transform=Steady(stop_after_3, LEVELS["strong"]), **options)
    before = next(fresh)
    convert(source, tmp_path / name, transform=Steady(make, LEVELS["strong"]), resume=True, **options)
    done = 6 - (next(fresh) - before - 1)
    left, after = (
        each.permute(1, 2, 0).numpy().astype(np.float32) for each in shown(tmp_path / name)[done - 1 : done + 1]
    )
    inner = np.s_[24:-24, 24:-24]
    there = warped(left, np.full((*left.shape[:2], 2), (2.3, 0.7), np.float32), cv2.INTER_CUBIC)
    assert np.corrcoef(there[inner].ravel(), after[inner].ravel())[0, 1] > 0.7
