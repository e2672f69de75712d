"""``perceptual evaluate``: measures the quality of networks."""

from argparse import Namespace
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from ..settings import option_name, parse, settings_of
from .arguments import add_settings, given, metavar

SUPER_RESOLUTION = """Measures super-resolution networks, and bicubic enlargement, on images of high resolution.

  perceptual evaluate super-resolution --model super_resolution_x4 mine.safetensors --data Set5/

Each image is reduced by --degradation, enlarged again and compared with itself: PSNR and SSIM on Y and RGB, and the
distance of the loss network's features; with and without histogram matching. The folder --output gets a table as
Markdown and as JSON, and a contact sheet of crops. LPIPS is measured if torchvision's AlexNet is in torch's cache.
"""

STYLE = """Compares style networks with optimization of the picture itself, on photos that were not used in training.

  perceptual evaluate style --model mine --content photos/
  perceptual evaluate style --model mine.safetensors --style-image painting.jpg --content holiday/ --split all

Reports content loss, style loss by layer and total variation, weighted as in the training: of each network's output, of
the photo, and of optimizations that start from the photo or from noise. Also after how many iterations these match the
network, and artefacts: grids in flat areas, and borders. The folder --output gets tables as Markdown and as JSON, and
contact sheets. This takes hours on a CPU: limit it by --sizes, --photos and --iterations. If the training had
--loss-weights, they must be named here too. Networks of many styles: perceptual evaluate styles.
"""

STYLES = """Measures the styles of one network, and compares them with networks of one style, if some are named.

  perceptual evaluate styles --model styles --style-dir paintings/ --content photos/ \\
      --loss-weights vgg19.safetensors --sizes 256 512
  perceptual evaluate styles ... --styles starry_night udnie --against mine yours

Every painting has the same weight, as in the training: the style loss of unchanged photos is 1e6 times --style-weights.
Reports content loss, style loss, the mean of its ratio to the photo's own, total variation and grids, for every size at
which the paintings were learned. The folder --output gets tables as Markdown and as JSON, and contact sheets.

A style learned on a network is measured by its own file as --model; its painting has the style's name.
"""


VIDEO = """Measures the flicker of stylized videos, and the cost of reducing it.

  perceptual evaluate video --model styles --style starry_night --clips clip.mp4 --loss-weights vgg19.safetensors
  perceptual evaluate video --model mine --clips clip.mp4 other.mp4

Reports, for every level of --steady, the warping error: the mean squared difference between a picture, in [0, 1], and
the one before, warped by the optical flow of the input, where forward and backward flow agree. Blurring lowers it too,
so the report also has the network's content and style losses, the distance to the features of the picture that is
stylized frame by frame, and the time per frame. The folder --output gets tables as Markdown and as JSON, and a strip of
frames for each clip.
"""


DESCRIPTION = """Measures networks, and writes tables and pictures to a folder.

  perceptual evaluate super-resolution --model super_resolution_x4 --data Set5/
  perceptual evaluate styles --model styles --style-dir paintings/ --content photos/ --loss-weights vgg19.safetensors
  perceptual evaluate TASK --help
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    from perceptual_training.evaluation_settings import (
        EvaluationSettings,
        ManyStylesEvaluationSettings,
        StyleEvaluationSettings,
        VideoEvaluationSettings,
    )

    tasks = subparsers.add_parser("evaluate", help="measure networks", description=DESCRIPTION).add_subparsers(
        title="tasks", metavar="TASK", required=True
    )
    for name, summary, description, settings, run in (
        (
            "super-resolution",
            "PSNR, SSIM and feature distance against bicubic",
            SUPER_RESOLUTION,
            EvaluationSettings,
            evaluate_super_resolution,
        ),
        (
            "style",
            "losses, against optimization of the picture itself",
            STYLE,
            StyleEvaluationSettings,
            evaluate_style,
        ),
        ("styles", "losses of a network of many styles", STYLES, ManyStylesEvaluationSettings, evaluate_styles),
        ("video", "flicker of videos, and the cost of reducing it", VIDEO, VideoEvaluationSettings, evaluate_video),
    ):
        parser = tasks.add_parser(name, help=summary, description=description, usage=usage(name, settings))
        add_settings(parser, settings)
        parser.set_defaults(run=run)


def usage(task: str, settings: type) -> str:
    """The usage of the command for one task, with its required settings."""
    required = [each for each in settings_of(settings) if each.default is MISSING]
    options = [f"--{option_name(each)} {metavar(each.metadata['kind'])}" for each in required]
    return " ".join(("perceptual evaluate", task, *options, "[settings]"))


def evaluate_super_resolution(args: Namespace) -> None:
    """Measures super-resolution networks."""
    from perceptual_training.evaluation_settings import EvaluationSettings
    from perceptual_training.super_resolution_evaluation import evaluate

    report = evaluate(parse(EvaluationSettings, given(args, EvaluationSettings)))
    show(report)


def evaluate_style(args: Namespace) -> None:
    """Measures style networks."""
    from perceptual_training.evaluation_settings import StyleEvaluationSettings
    from perceptual_training.style_evaluation import evaluate_style

    show(evaluate_style(parse(StyleEvaluationSettings, given(args, StyleEvaluationSettings))))


def evaluate_styles(args: Namespace) -> None:
    """Measures the styles of one network."""
    from perceptual_training.evaluation_settings import ManyStylesEvaluationSettings
    from perceptual_training.many_styles_evaluation import evaluate_many_styles

    show(evaluate_many_styles(parse(ManyStylesEvaluationSettings, given(args, ManyStylesEvaluationSettings))))


def evaluate_video(args: Namespace) -> None:
    """Measures the flicker of videos."""
    from perceptual_training.evaluation_settings import VideoEvaluationSettings
    from perceptual_training.video_evaluation import evaluate_video

    show(evaluate_video(parse(VideoEvaluationSettings, given(args, VideoEvaluationSettings))))


def show(report: Path) -> None:
    """Prints a report's table of means."""
    means = report.read_text(encoding="utf-8").split("\n## ")[0]
    print("\n".join(line for line in means.splitlines() if line.startswith("|")))
    print(f"\nin {report}, with every image; pictures in {report.parent}")
