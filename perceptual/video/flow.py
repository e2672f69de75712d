"""Dense optical flow between frames, with a mask of where it is reliable.

The flow is that of dense inverse search (DIS; Kroeger et al. 2016, https://arxiv.org/abs/1603.03590).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from torch import Tensor

LONGEST = 640  # pixels; flow is found in frames reduced to this longest side
# If forward and backward flow differ by more than this, a pixel was occluded (Sundaram et al. 2010, section 3).
RELATIVE, ABSOLUTE = 0.01, 0.5
LEAST_SIDE = 16  # pixels; of lower frames OpenCV reads beyond the edges
LEAST_SEEN = 0.3  # if a smaller share of a frame is visible in the frame before, there is a cut between them


@dataclass(frozen=True, eq=False)
class Motion:
    """Where a frame's pixels were in the frame before.

    Attributes:
        flow: Offset from a pixel to its position in the frame before, float32 H×W×2: x and y, in pixels of this array.
        seen: Whether the pixel was visible there, float32 H×W, 0 or 1.
    """

    flow: np.ndarray
    seen: np.ndarray

    @property
    def is_cut(self) -> bool:
        """Whether the frame before was of another scene."""
        return bool(self.seen.mean() < LEAST_SEEN)

    def resized(self, height: int, width: int) -> "Motion":
        """The motion for frames of another size."""
        size = (width, height)
        scale = np.array([width / self.flow.shape[1], height / self.flow.shape[0]], np.float32)
        return Motion(cv2.resize(self.flow, size) * scale, cv2.resize(self.seen, size))


class MotionFinder:
    """Finds the motion between frames of one size, one after another."""

    def __init__(self) -> None:
        self.flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self.before: np.ndarray | None = None

    def __call__(self, rgb: Tensor) -> Motion | None:
        """The motion from the frame before to this, uint8 3×H×W.

        None for the first, after a change of size, and if a frame, reduced, is lower or narrower than 16 pixels.
        """
        before, now = self.before, reduced(rgb)
        self.before = now
        if before is None or before.shape != now.shape or min(now.shape) < LEAST_SIDE:
            return None
        backward = self.flow.calc(now, before, None)
        forward = self.flow.calc(before, now, None)
        return Motion(backward, visible_before(backward, forward))


def reduced(rgb: Tensor) -> np.ndarray:
    """A frame's luma, uint8, reduced to the size at which flow is computed."""
    grey = cv2.cvtColor(np.ascontiguousarray(rgb.permute(1, 2, 0).numpy()), cv2.COLOR_RGB2GRAY)
    scale = LONGEST / max(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(grey)


def visible_before(backward: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """1 where backward and forward flow agree and stay within the frame, else 0."""
    there = warped(forward, backward)
    error = squared_length(backward + there)
    limit = RELATIVE * (squared_length(backward) + squared_length(there)) + ABSOLUTE
    x, y = positions(backward)
    inside = (x >= 0) & (y >= 0) & (x <= backward.shape[1] - 1) & (y <= backward.shape[0] - 1)
    return np.asarray((error < limit) & inside, np.float32)


def squared_length(flow: np.ndarray) -> np.ndarray:
    """The square of each offset's length; far quicker than a sum over an axis of two."""
    across, down = cv2.split(flow)
    result: np.ndarray = across * across + down * down
    return result


def warped(image: np.ndarray, flow: np.ndarray, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    """An image H×W×C warped by a flow: each pixel is taken from its position plus the flow."""
    result: np.ndarray = cv2.remap(image, *positions(flow), interpolation, borderMode=cv2.BORDER_REPLICATE)
    return result


def positions(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positions that a flow points to, x and y."""
    height, width = flow.shape[:2]
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return columns + flow[..., 0], rows + flow[..., 1]
