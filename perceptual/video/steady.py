"""Steady frames: strokes that stay on what they are painted on.

A network by itself flickers: between two frames its strokes change, as the grid of its layers lies elsewhere on the
picture. Blending a frame with the one before steadies it too, but blurs: the mean of two sets of strokes has less
contrast than either, and a picture that is resampled anew for every frame loses its detail.

So the strokes of one frame, the anchor, are moved along with what they lie on, from the anchor directly to each frame:
every pixel is resampled once, however old it is. Where something comes into sight, where the flow does not hold, and
where the strokes would be enlarged or reduced, the network's own result stands. When that is much of the frame, it
becomes an anchor too, and takes what the older ones do not hold. Colours and light follow the network's own result:
only what is finer is taken from anchors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from ..inference.images import Picture
from .flow import Motion, MotionFinder, moved, reduced

LIGHT = 65  # pixels; what changes over more than that is light and colour, not strokes
SMALL, LARGE = 5, 31  # pixels at which details are compared: between these sizes
WIDE = 101  # pixels around each for which one enlargement is found
ENLARGED = 0.035  # at most; a painting's strokes have one size
MOST_ANCHORS = 4
LEAST_USED = 0.02  # share of a frame; an anchor of which less is left is dropped


@dataclass(frozen=True)
class Level:
    """How steady.

    Attributes:
        unlike: Levels of 255 by which a frame's own detail may differ from the anchor's, where the anchor is used.
        most_free: Share of a frame that no anchor covers; with more, it becomes one itself.
    """

    unlike: float
    most_free: float


LEVELS = {"normal": Level(24, 0.3), "strong": Level(40, 0.2)}


class Steady:
    """Makes pictures of the frames of a clip, in their order, that are steady.

    Args:
        make: Makes pictures of frames, one by one or several at once.
        level: How steady.
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
        """Goes on after a frame and the picture that was made of it before."""
        self.find_motion(frame.rgb)
        self.anchors = [Anchor(frame, made)]

    def steadied(self, frame: Picture, made: Picture) -> Picture:
        """The picture of a frame, with what the anchors still hold of it."""
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
    """A frame, the picture that was made of it, and where its contents are by now.

    Args:
        frame: As it was read.
        made: Of that frame.
    """

    def __init__(self, frame: Picture, made: Picture) -> None:
        self.made = rows(made)
        self.grey = reduced(frame.rgb)
        self.flow = np.zeros((*self.grey.shape, 2), np.float32)  # from the present frame to the anchor
        self.seen = np.ones(self.grey.shape, np.float32)

    def move(self, motion: Motion) -> None:
        """Goes on to the next frame."""
        self.flow = motion.flow + moved(self.flow, motion.flow)
        self.seen = motion.seen * moved(self.seen, motion.flow)

    def known_in(self, frame: Picture, unlike: float) -> np.ndarray:
        """Where the anchor shows the same as the present frame, float32, from 0 to 1 at soft edges."""
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
    """What of a frame is finer than light and shade."""
    grey = grey.astype(np.float32)
    fine: np.ndarray = grey - cv2.blur(grey, (LARGE, LARGE))
    return fine
