"""Measures the flicker of stylized videos, and the cost of reducing it in style and time."""

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from perceptual.errors import InvalidOption
from perceptual.files import write_atomically
from perceptual.inference import images
from perceptual.inference.images import Picture
from perceptual.inference.predictor import Predictor, load
from perceptual.inference.sheets import contact_sheet
from perceptual.options import StyleOptions
from perceptual.video.clips import Frame, open_clip
from perceptual.video.flow import Motion, MotionFinder, warped
from perceptual.video.steady import LEVELS, Level, Steady

from .evaluation_settings import VideoEvaluationSettings
from .many_styles_evaluation import chosen_paintings, trained_objective
from .objective import StyleObjective
from .report import Row, averages, encoded, table
from .settings import plain
from .style_evaluation import checked_objective, figures, losses_of

SHOWN = 4  # frames of a strip
PAINTINGS = Path(__file__).with_name("paintings")  # those that ship

Transform = Callable[[Sequence[Picture]], list[Picture]]


def evaluate_video(settings: VideoEvaluationSettings) -> Path:
    """Measures every level of steadiness on every clip.

    Returns:
        The report as Markdown. In its folder are the same figures as JSON, and a strip of frames of each clip: the
        input, and every level.

    Raises:
        InvalidOption: A clip has fewer than two frames, or a network of many styles is given without one of them.
        InputError: A clip cannot be read.
        WeightsError: The network is missing or for another task.
        TrainingError: No loss network, or not the one of the training.
    """
    predictor = load(settings.model, settings.device, "eager")
    predictor.require("style")
    options = StyleOptions(style=((settings.style, 1.0),) if settings.style else None, grain=0.0)  # as in a video
    predictor.conditions([options])  # raises if there is no such style
    objective = objective_of(predictor, settings)
    rows: list[Row] = []
    report = settings.output / "video.md"
    for path in settings.clips:
        frames = frames_of(path, settings)
        alone, seconds = timed(partial(stylized, predictor, options), frames)
        pictures, times = {"off": alone}, {"off": seconds}
        for name, level in LEVELS.items():
            pictures[name], steadying = timed(steady(alone, level), frames)
            times[name] = seconds + steadying
        rows += [
            {
                "image": path.name,
                "steady": name,
                "warping error": warping_error(frames, styled),
                **fidelity(objective, frames, styled, alone),
                "ms a frame": times[name] / len(frames) * 1000,
            }
            for name, styled in pictures.items()
        ]
        strips = [[("", each.to_pil()) for each in spread_out(row)] for row in (frames, *pictures.values())]
        write_report(settings, report, rows)
        contact_sheet(strips).save(settings.output / f"strip_{path.stem}.png")
    return report


def timed(transform: Transform, frames: Sequence[Picture]) -> tuple[list[Picture], float]:
    """The results of all frames, transformed one after another, and the time in seconds."""
    start = time.perf_counter()
    results = [result for frame in frames for result in transform([frame])]
    return results, time.perf_counter() - start


def objective_of(predictor: Predictor, settings: VideoEvaluationSettings) -> StyleObjective:
    """The objective that the network was trained with, for the one style that is measured."""
    sizes = predictor.metadata["provenance"].get("recipe", {}).get("style_sizes")
    if not sizes:
        return checked_objective(losses_of(settings.model, predictor, settings), {settings.model: predictor})
    folder = settings.style_dir or PAINTINGS
    paintings = chosen_paintings(predictor, [settings.style or predictor.styles[0]], folder)
    return trained_objective(settings, predictor, paintings, sizes[:1])


def stylized(predictor: Predictor, options: StyleOptions, frames: Sequence[Picture]) -> list[Picture]:
    """Frames stylized independently of each other."""
    return predictor.stylize_pictures(frames, [options] * len(frames))


def steady(results: Sequence[Picture], level: Level) -> Steady:
    """Steadies the given results, so that the network need not run again."""
    following = iter(results)
    return Steady(lambda frames: list(islice(following, len(frames))), level)


def frames_of(path: Path, settings: VideoEvaluationSettings) -> list[Picture]:
    """The first frames of a clip, reduced."""
    with open_clip(path) as clip:
        frames = (images.shrink(each.picture, settings.max_size) for each in clip if isinstance(each, Frame))
        taken = list(islice(frames, settings.frames))
    if len(taken) < 2:
        raise InvalidOption(f"{path}: has a single frame, so its flicker cannot be measured")
    return taken


def warping_error(frames: Sequence[Picture], pictures: Sequence[Picture]) -> float:
    """Mean squared difference of each picture, in [0, 1], and the one before, warped by the frames' flow.

    Only pixels at which forward and backward flow agree are measured, and no cuts.
    """
    find_motion = MotionFinder()
    motions = [find_motion(frame.rgb) for frame in frames][1:]
    errors = [
        difference(before.rgb, now.rgb, motion)
        for (before, now), motion in zip(pairwise(pictures), motions, strict=True)
        if motion and not motion.is_cut
    ]
    return float(np.mean(errors)) if errors else 0.0


def difference(before: Tensor, now: Tensor, motion: Motion) -> float:
    """Mean squared difference of two pictures, uint8 3×H×W, as levels in [0, 1]."""
    motion = motion.resized(*now.shape[1:])
    first, second = (each.permute(1, 2, 0).float().numpy() / 255 for each in (before, now))
    squares = ((second - warped(first, motion.flow, cv2.INTER_CUBIC)) ** 2).mean(2)
    return float((squares * motion.seen).sum() / motion.seen.sum())


def fidelity(
    objective: StyleObjective, frames: Sequence[Picture], styled: Sequence[Picture], alone: Sequence[Picture]
) -> Row:
    """Means over a few frames: the losses, and the distance of features to those of pictures stylized frame by frame.

    Frames of the first quarter are not used, as steadying hardly changes them.
    """
    rows = []
    later = (spread_out(each[len(each) // 4 :]) for each in (frames, styled, alone))
    for pictures in zip(*later, strict=True):
        frame, picture, single = (floats(each, objective.device) for each in pictures)
        losses = figures(objective, picture, objective.targets(frame))
        with torch.no_grad():
            distance = objective.content_loss(objective.features(picture), objective.targets(single)).item()
        rows.append({"style": losses["style"], "content": losses["content"], "feature distance": distance})
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def spread_out(pictures: Sequence[Picture]) -> list[Picture]:
    """:data:`SHOWN` evenly spaced pictures, from the first to the last."""
    places = np.linspace(0, len(pictures) - 1, min(SHOWN, len(pictures))).round().astype(int)
    return [pictures[place] for place in places]


def floats(picture: Picture, device: torch.device) -> Tensor:
    """A picture as 1×3×H×W in [0, 1] on a device."""
    return picture.rgb[None].to(device).float() / 255


def write_report(settings: VideoEvaluationSettings, report: Path, rows: Sequence[Row]) -> None:
    """Writes all figures so far, as Markdown and JSON."""
    means = averages(rows, "steady")
    text = json.dumps({"settings": plain(settings), "means": means, "clips": rows}, indent=2, ensure_ascii=False)
    write_atomically(report.with_suffix(".json"), encoded(text))
    lines = ["# Steadiness, measured", "", *table(means, shown), "", "## Every clip", "", *table(rows, shown), ""]
    write_atomically(report, encoded("\n".join(lines)))


def shown(name: str, value: Any) -> str:
    """A figure as text, rounded to three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
