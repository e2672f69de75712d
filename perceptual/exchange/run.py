"""The type of functions that run an exported file."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Run = Callable[[Mapping[str, Array]], Array]  # from images N×3×H×W and perhaps styles N×P, by name, to the result
