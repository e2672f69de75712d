"""``perceptual evaluate``: how good networks are, in figures."""

from argparse import Namespace
from typing import Any

from ..settings import parse
from .arguments import add_settings, given

SUPER_RESOLUTION = """Measures networks of super-resolution, and bicubic, on images of high resolution.

  perceptual evaluate super-resolution --model super_resolution_x4_feature mine.safetensors --data Set5/

Each image is reduced by --degradation, enlarged again and compared with itself: PSNR and SSIM on Y and RGB, and the
distance of the loss network's features; with and without histogram matching. The folder --output gets a table as
Markdown and as JSON, and a contact sheet of crops.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    from perceptual_training.settings import EvaluationSettings

    tasks = subparsers.add_parser("evaluate", help="measure networks").add_subparsers(
        title="tasks", metavar="TASK", required=True
    )
    parser = tasks.add_parser(
        "super-resolution", help="PSNR, SSIM and feature distance against bicubic", description=SUPER_RESOLUTION
    )
    add_settings(parser, EvaluationSettings)
    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Measures, and prints the table of means."""
    from perceptual_training.evaluation import evaluate
    from perceptual_training.settings import EvaluationSettings

    report = evaluate(parse(EvaluationSettings, given(args, EvaluationSettings)))
    print("\n".join(line for line in report.read_text().split("\n## ")[0].splitlines() if line.startswith("|")))
    print(f"\nin {report}, with every image; crops in {report.parent}")
