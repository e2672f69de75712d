"""The image transformation networks of Johnson et al. 2016, configurable.

Every network takes and returns RGB in [0, 1], for any height and width of at least 1; normalisation, padding to a
size the layers can take, and cropping back happen inside. Layers follow the paper's supplementary material
(https://cs.stanford.edu/people/jcjohns/papers/eccv16/JohnsonECCV16Supplementary.pdf, tables 1 and 2).
"""

from .base import ImageTransformationNetwork
from .style import StyleNetwork
from .super_resolution import SuperResolutionNetwork

__all__ = ["ImageTransformationNetwork", "StyleNetwork", "SuperResolutionNetwork"]
