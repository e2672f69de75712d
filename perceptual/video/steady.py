"""Reduces flicker: strokes move with the objects on which they are painted.

A network that stylizes frame by frame flickers: its strokes change from one frame to the next. Blending each frame with
the one before would reduce this, but blurs: the mean of two sets of strokes has less contrast than either, and a
picture that is resampled for every frame loses detail.

Instead, the strokes of one frame, the anchor, are warped by the optical flow from the anchor directly to each frame, so
that they are resampled once, however old they are. Where new content appears, where the flow is not reliable, and where
the strokes would change their size, the network's own result is used. If that is a large share of a frame, the frame
becomes a further anchor. Colours and light always follow the network's own result: only finer detail is taken from
anchors. A pixel has the strokes of one anchor, or the network's own, as a mixture of two has less contrast. At last the
whole picture gets the contrast of the network's own result, at each scale.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from ..inference.images import Picture
from .contrast import with_contrast
from .flow import Motion, MotionFinder, reduced, warped

LIGHT = 65  # pixels; differences at coarser scales are light and colour, not strokes
SMALL, LARGE = 21, 31  # pixels; details are compared at scales between these, as finer ones are never quite in place
AROUND = 15  # pixels; side of the square over which contrast is averaged
FAINT = 3  # levels of 255; contrast that noise alone may have
ISLAND = 31  # pixels; smaller islands of an anchor's area are removed, as each edge cuts strokes
HOLE = 15  # pixels; smaller holes in it are filled; larger ones may be objects that have come before it
WIDE = 101  # pixels; side of the square over which enlargement is averaged
ENLARGED = 0.035  # maximum enlargement or reduction of strokes
MAX_ANCHORS = 3  # with more, a picture is a patchwork
LEAST_USED = 0.02  # share of a frame; an anchor that covers less is dropped


@dataclass(frozen=True)
class Level:
    """A level of steadiness.

    Attributes:
        max_difference: The anchor is used where its detail differs from the frame's by at most this, relative to the
            contrast around.
        max_uncovered: If no anchor covers more than this share of a frame, the frame becomes an anchor.
    """

    max_difference: float
    max_uncovered: float


LEVELS = {"normal": Level(0.16, 0.3), "strong": Level(0.19, 0.2)}


class Steady:
    """Stylizes the frames of a clip, in order, with steady strokes.

    Args:
        stylize: Converts frames, one or several in a call.
        level: The level of steadiness.
    """

    def __init__(self, stylize: Callable[[Sequence[Picture]], list[Picture]], level: Level) -> None:
        self.stylize = stylize
        self.level = level
        self.find_motion = MotionFinder()
        self.anchors: list[Anchor] = []  # the oldest first

    def __call__(self, frames: Sequence[Picture]) -> list[Picture]:
        """Results for the next frames."""
        return [self.steadied(*each) for each in zip(frames, self.stylize(frames), strict=True)]

    def begin(self, frame: Picture, styled: Picture) -> None:
        """Starts after a frame that an earlier run has converted, with its result."""
        self.find_motion(frame.rgb)
        self.anchors = [Anchor(frame, styled)]

    def steadied(self, frame: Picture, styled: Picture) -> Picture:
        """A frame's result, with the anchors' strokes where they are usable."""
        motion = self.find_motion(frame.rgb)
        if motion is None or motion.is_cut or any(each.styled.shape != as_array(styled).shape for each in self.anchors):
            self.anchors = []
        for anchor in self.anchors:
            assert motion
            anchor.move(motion)
        used, uncovered = self.shares(frame)
        result = own = as_array(styled).astype(np.float32)
        for anchor, share in zip(self.anchors, used, strict=True):
            result = result + anchor.difference(own, share)
        if self.anchors:
            result = with_contrast(result, own)
        self.anchors = [each for each, share in zip(self.anchors, used, strict=True) if share.mean() > LEAST_USED]
        if uncovered > self.level.max_uncovered:
            self.anchors = [*self.anchors[1 - MAX_ANCHORS :], Anchor(frame, styled)]
        rgb = torch.from_numpy(np.rint(result).clip(0, 255).astype(np.uint8)).permute(2, 0, 1).contiguous()
        return replace(styled, rgb=rgb)

    def shares(self, frame: Picture) -> tuple[list[np.ndarray], float]:
        """The weight of each anchor at each pixel, older anchors first, and the share of the frame that none covers."""
        uncovered, used = np.float32(1), []
        for anchor in self.anchors:
            used.append(uncovered * anchor.still_visible(frame, self.level.max_difference))
            uncovered = uncovered - used[-1]
        return used, float(uncovered.mean())


class Anchor:
    """A frame, its result, and the flow from the current frame to it.

    Args:
        frame: The input frame.
        styled: Its result.
    """

    def __init__(self, frame: Picture, styled: Picture) -> None:
        self.styled = as_array(styled)
        self.grey = reduced(frame.rgb)
        self.flow = np.zeros((*self.grey.shape, 2), np.float32)  # from the current frame to the anchor
        self.seen = np.ones(self.grey.shape, np.float32)

    def move(self, motion: Motion) -> None:
        """Makes the next frame the current one."""
        self.flow = motion.flow + warped(self.flow, motion.flow)
        self.seen = motion.seen * warped(self.seen, motion.flow)

    def still_visible(self, frame: Picture, max_difference: float) -> np.ndarray:
        """Where the anchor shows the same as the current frame, and has in all frames since: float32, 0 or 1.

        Called once for each frame: ``seen`` loses what is not visible, as strokes that come and go would flicker.
        """
        alike = are_alike(reduced(frame.rgb), warped(self.grey, self.flow), max_difference)
        known = (self.seen > 0.5) & alike & (np.abs(self.enlarged()) < ENLARGED)
        self.seen *= known
        there = known.astype(np.uint8)
        smooth: np.ndarray = np.minimum(cv2.medianBlur(there, ISLAND), cv2.medianBlur(there, HOLE)).astype(np.float32)
        return smooth

    def enlarged(self) -> np.ndarray:
        """How much larger the strokes are than in the anchor, around each pixel: 0.05 is 5 %."""
        across, down = cv2.split(cv2.blur(self.flow, (WIDE, WIDE)))
        change: np.ndarray = cv2.Sobel(across, cv2.CV_32F, 1, 0) + cv2.Sobel(down, cv2.CV_32F, 0, 1)
        return -change / 16  # a Sobel filter gives 8 times the slope, and there are two directions

    def difference(self, own: np.ndarray, share: np.ndarray) -> np.ndarray:
        """The difference that adds a share of the anchor's strokes to the network's own picture, float32 H×W×3."""
        motion = Motion(self.flow, share).resized(*own.shape[:2])
        weight = motion.seen[..., None]
        off = warped(self.styled, motion.flow, cv2.INTER_LANCZOS4) - own
        shares = cv2.blur(motion.seen, (LIGHT, LIGHT))[..., None] + 1e-6
        result: np.ndarray = weight * (off - cv2.blur(weight * off, (LIGHT, LIGHT)) / shares)
        return result


def as_array(picture: Picture) -> np.ndarray:
    """A picture as an array for OpenCV, uint8 H×W×3."""
    return picture.rgb.permute(1, 2, 0).contiguous().numpy()


def are_alike(one: np.ndarray, other: np.ndarray, max_difference: float) -> np.ndarray:
    """Where two frames show the same, bool.

    The flow is not exact, and what is a little out of place differs by a share of the contrast around, the less of the
    two frames': where that is low, as in a face, a small difference is a real change. Contrast that is doubled
    is one too, such as a fine texture.
    """
    one, other = detail(one), detail(other)
    difference = np.abs(cv2.blur(one - other, (SMALL, SMALL)))
    contrasts = [cv2.blur(np.abs(each), (AROUND, AROUND)) for each in (one, other)]
    least = np.minimum(*contrasts) + FAINT
    alike: np.ndarray = (difference < max_difference * least) & (np.maximum(*contrasts) < 2 * least)
    return alike


def detail(grey: np.ndarray) -> np.ndarray:
    """The detail of a frame: its difference to a blurred copy."""
    grey = grey.astype(np.float32)
    fine: np.ndarray = grey - cv2.blur(grey, (LARGE, LARGE))
    return fine
