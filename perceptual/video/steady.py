"""Reduces flicker: strokes move with the objects on which they are painted.

A network that stylizes frame by frame flickers: its strokes change from one frame to the next. Blending each frame with
the one before would reduce this, but blurs: the mean of two sets of strokes has less contrast than either, and a
picture that is resampled for every frame loses detail.

Instead, the strokes of one frame, the anchor, are warped by the optical flow from the anchor directly to each frame, so
that they are resampled once, however old they are. Where new content appears, where the flow is not reliable, and where
the strokes would change their size, the network's own result is used. When that is much of a frame, the frame becomes
an anchor too, for what the older ones do not show. Colours and light follow the network's own result: only finer detail
is taken from anchors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from ..inference.images import Picture
from .flow import Motion, MotionFinder, moved, reduced

LIGHT = 65  # pixels; coarser differences are light and colour, not strokes
SMALL, LARGE = 5, 31  # pixels; details are compared at scales between these
WIDE = 101  # pixels; enlargement is a mean over such a square
ENLARGED = 0.035  # maximum enlargement or reduction of strokes
MOST_ANCHORS = 4
LEAST_USED = 0.02  # share of a frame; an anchor that covers less is dropped


@dataclass(frozen=True)
class Level:
    """A level of steadiness.

    Attributes:
        unlike: Maximum difference between a frame's detail and an anchor's, in levels of 255, to use the anchor.
        most_free: Maximum share of a frame that no anchor covers, or the frame becomes an anchor.
    """

    unlike: float
    most_free: float


LEVELS = {"normal": Level(24, 0.3), "strong": Level(40, 0.2)}


class Steady:
    """Stylizes the frames of a clip, in order, with steady strokes.

    Args:
        make: Stylizes frames, one or several in a call.
        level: The level of steadiness.
    """

    def __init__(self, make: Callable[[Sequence[Picture]], list[Picture]], level: Level) -> None:
        self.make = make
        self.level = level
        self.find_motion = MotionFinder()
        self.anchors: list[Anchor] = []  # the oldest first

    def __call__(self, frames: Sequence[Picture]) -> list[Picture]:
        """Pictures of the next frames."""
        return [self.steadied(*each) for each in zip(frames, self.make(frames), strict=True)]

    def begin(self, frame: Picture, made: Picture) -> None:
        """Continues after a frame and its result, from an earlier run."""
        self.find_motion(frame.rgb)
        self.anchors = [Anchor(frame, made)]

    def steadied(self, frame: Picture, made: Picture) -> Picture:
        """A frame's result, with the strokes of the anchors where they are visible."""
        motion = self.find_motion(frame.rgb)
        if motion is None or motion.is_cut or any(each.made.shape != rows(made).shape for each in self.anchors):
            self.anchors = []
        for anchor in self.anchors:
            assert motion
            anchor.move(motion)
        used, free = self.shares(frame)
        result = own = rows(made).astype(np.float32)
        for anchor, share in zip(self.anchors, used, strict=True):
            result = result + anchor.difference(own, share)
        self.anchors = [each for each, share in zip(self.anchors, used, strict=True) if share.mean() > LEAST_USED]
        if free > self.level.most_free:
            self.anchors = [*self.anchors[1 - MOST_ANCHORS :], Anchor(frame, made)]
        rgb = torch.from_numpy(np.rint(result).clip(0, 255).astype(np.uint8)).permute(2, 0, 1).contiguous()
        return replace(made, rgb=rgb)

    def shares(self, frame: Picture) -> tuple[list[np.ndarray], float]:
        """How much of each pixel comes from each anchor, the oldest that knows it, and the share that none knows."""
        free, used = np.float32(1), []
        for anchor in self.anchors:
            used.append(free * anchor.known_in(frame, self.level.unlike))
            free = free - used[-1]
        return used, float(free.mean())


class Anchor:
    """A frame, its result, and the flow from the current frame to it.

    Args:
        frame: The input frame.
        made: Its result.
    """

    def __init__(self, frame: Picture, made: Picture) -> None:
        self.made = rows(made)
        self.grey = reduced(frame.rgb)
        self.flow = np.zeros((*self.grey.shape, 2), np.float32)  # from the present frame to the anchor
        self.seen = np.ones(self.grey.shape, np.float32)

    def move(self, motion: Motion) -> None:
        """Extends the flow to the next frame."""
        self.flow = motion.flow + moved(self.flow, motion.flow)
        self.seen = motion.seen * moved(self.seen, motion.flow)

    def known_in(self, frame: Picture, unlike: float) -> np.ndarray:
        """A mask of where the anchor shows the same as the current frame, float32 in [0, 1] with soft edges."""
        off = detail(reduced(frame.rgb)) - detail(moved(self.grey, self.flow))
        alike = cv2.blur(np.abs(off), (SMALL, SMALL)) < unlike
        known = self.seen * (alike & (np.abs(self.enlarged()) < ENLARGED))
        soft: np.ndarray = cv2.blur(cv2.erode(known, np.ones((SMALL, SMALL))), (SMALL, SMALL))
        return soft

    def enlarged(self) -> np.ndarray:
        """By how much the strokes are enlarged by now, around each pixel: 0.05 is 5 %."""
        across, down = cv2.split(cv2.blur(self.flow, (WIDE, WIDE)))
        change: np.ndarray = cv2.Sobel(across, cv2.CV_32F, 1, 0) + cv2.Sobel(down, cv2.CV_32F, 0, 1)
        return -change / 16  # a Sobel filter gives 8 times the slope, and there are two directions

    def difference(self, own: np.ndarray, share: np.ndarray) -> np.ndarray:
        """What to add to the network's own picture, H×W×3, for a share of the anchor's strokes."""
        motion = Motion(self.flow, share).resized(*own.shape[:2])
        weight = motion.seen[..., None]
        off = moved(self.made, motion.flow, cv2.INTER_LANCZOS4) - own
        shares = cv2.blur(motion.seen, (LIGHT, LIGHT))[..., None] + 1e-6
        result: np.ndarray = weight * (off - cv2.blur(weight * off, (LIGHT, LIGHT)) / shares)
        return result


def rows(picture: Picture) -> np.ndarray:
    """A picture as OpenCV takes it, uint8 H×W×3."""
    return picture.rgb.permute(1, 2, 0).contiguous().numpy()


def detail(grey: np.ndarray) -> np.ndarray:
    """The detail of a frame: its difference to a blurred copy."""
    grey = grey.astype(np.float32)
    fine: np.ndarray = grey - cv2.blur(grey, (LARGE, LARGE))
    return fine
