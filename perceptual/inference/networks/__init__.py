"""The image transformation networks of Johnson et al. 2016, configurable.

Every network maps RGB in [0, 1] to RGB in [0, 1], for any height and width of at least 1. Normalization, padding to a
valid size and cropping back happen inside. The layers follow the paper's supplementary material
(https://cs.stanford.edu/people/jcjohns/papers/eccv16/JohnsonECCV16Supplementary.pdf, tables 1 and 2).
"""

from .base import ImageTransformationNetwork
from .style import StyleNetwork
from .super_resolution import SuperResolutionNetwork

__all__ = ["ImageTransformationNetwork", "StyleNetwork", "SuperResolutionNetwork"]
