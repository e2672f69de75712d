"""The style that benchmarks request of a network of many styles; all take the same time."""

from typing import Any

from perceptual.inference.predictor import Predictor
from perceptual.options import StyleOptions
from perceptual.settings import parse


def first_style(predictor: Predictor) -> dict[str, Any]:
    """The option that names a network's first style; none for a network of one."""
    return {"style": predictor.styles[0]} if len(predictor.styles) > 1 else {}


def style_options(predictor: Predictor) -> StyleOptions:
    """Options that are the defaults but for :func:`first_style`."""
    return parse(StyleOptions, first_style(predictor))
