"""Reduces flicker: strokes move with the objects on which they are painted.

A network that stylizes frame by frame flickers: its strokes change from one frame to the next. Blending each frame with
the one before would reduce this, but blurs: the mean of two sets of strokes has less contrast than either, and a
picture that is resampled for every frame loses detail.

Instead, the strokes of one frame, the anchor, are warped by the optical flow from the anchor directly to each frame, so
that they are resampled once. Where new content appears, and where the flow is not reliable, the network's own result is
used. When too little of the anchor is visible, the current result becomes the next anchor. Colours and light follow the
network's own result: only finer detail is taken from the anchor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from ..inference.images import Picture
from .flow import Motion, MotionFinder, moved, reduced

LIGHT = 33  # pixels; coarser differences are light and colour, not strokes
SMALL, LARGE = 5, 31  # pixels; details are compared at scales between these


@dataclass(frozen=True)
class Level:
    """A level of steadiness.

    Attributes:
        unlike: Maximum difference between a frame's detail and the anchor's, in levels of 255, to use the anchor.
        least_kept: Share of a frame that the anchor must cover, or it is renewed.
    """

    unlike: float
    least_kept: float


LEVELS = {"normal": Level(24, 0.6), "strong": Level(40, 0.7)}


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
        self.anchor: Anchor | None = None

    def __call__(self, frames: Sequence[Picture]) -> list[Picture]:
        """Pictures of the next frames."""
        return [self.steadied(*each) for each in zip(frames, self.make(frames), strict=True)]

    def begin(self, frame: Picture, made: Picture) -> None:
        """Continues after a frame and its result, from an earlier run."""
        self.find_motion(frame.rgb)
        self.anchor = Anchor(frame, pixels(made))

    def steadied(self, frame: Picture, made: Picture) -> Picture:
        """A frame's result, with the strokes of the anchor where it is visible."""
        motion, own = self.find_motion(frame.rgb), pixels(made)
        if motion is None or motion.is_cut or self.anchor is None or self.anchor.made.shape != own.shape:
            self.anchor = Anchor(frame, own)
            return made
        self.anchor.move(motion)
        known = self.anchor.known_in(frame, self.level.unlike)
        result = self.anchor.onto(own, known)
        if known.mean() < self.level.least_kept:
            self.anchor = Anchor(frame, result)
        rgb = torch.from_numpy(np.rint(result).clip(0, 255).astype(np.uint8)).permute(2, 0, 1).contiguous()
        return replace(made, rgb=rgb)


class Anchor:
    """A frame, its result, and the flow from the current frame to it.

    Args:
        frame: The input frame.
        made: Its result, levels of 255, float32 H×W×3.
    """

    def __init__(self, frame: Picture, made: np.ndarray) -> None:
        self.made = made
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
        known = self.seen * (cv2.blur(np.abs(off), (SMALL, SMALL)) < unlike)
        soft: np.ndarray = cv2.blur(cv2.erode(known, np.ones((SMALL, SMALL))), (SMALL, SMALL))
        return soft

    def onto(self, own: np.ndarray, known: np.ndarray) -> np.ndarray:
        """A result, H×W×3, with the anchor's strokes where the mask is set."""
        motion = Motion(self.flow, known).resized(*own.shape[:2])
        weight = motion.seen[..., None]
        carried = moved(self.made, motion.flow, cv2.INTER_LANCZOS4)
        shares = cv2.blur(motion.seen, (LIGHT, LIGHT))[..., None] + 1e-6
        light = cv2.blur(weight * (own - carried), (LIGHT, LIGHT)) / shares
        result: np.ndarray = own + weight * (carried + light - own)
        return result


def pixels(picture: Picture) -> np.ndarray:
    """Levels of 255, float32 H×W×3."""
    return picture.rgb.permute(1, 2, 0).float().contiguous().numpy()


def detail(grey: np.ndarray) -> np.ndarray:
    """The detail of a frame: its difference to a blurred copy."""
    grey = grey.astype(np.float32)
    fine: np.ndarray = grey - cv2.blur(grey, (LARGE, LARGE))
    return fine
