"""Steady frames: strokes that stay on what they are painted on.

A network by itself flickers: between two frames its strokes change, as the grid of its layers lies elsewhere on the
picture. Blending a frame with the one before steadies it too, but blurs: the mean of two sets of strokes has less
contrast than either, and a picture that is resampled anew for every frame loses its detail.

So the strokes of one frame, the anchor, are moved along with what they lie on, from the anchor directly to each frame,
resampled once. Where something comes into sight, and where the flow does not hold, the network's own result stands.
When too little of the anchor is left, the picture as it is then becomes the next one. Colours and light follow the
network's own result: only what is finer is taken from the anchor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from ..inference.images import Picture
from .flow import Motion, MotionFinder, moved, reduced

LIGHT = 33  # pixels; what changes over more than that is light and colour, not strokes
SMALL, LARGE = 5, 31  # pixels at which details are compared: between these sizes


@dataclass(frozen=True)
class Level:
    """How steady.

    Attributes:
        unlike: Levels of 255 by which a frame's own detail may differ from the anchor's, where the anchor is used.
        least_kept: Share of a frame that the anchor covers; with less, it is renewed.
    """

    unlike: float
    least_kept: float


LEVELS = {"normal": Level(24, 0.6), "strong": Level(40, 0.7)}


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
        self.anchor: Anchor | None = None

    def __call__(self, frames: Sequence[Picture]) -> list[Picture]:
        """Pictures of the next frames."""
        return [self.steadied(*each) for each in zip(frames, self.make(frames), strict=True)]

    def begin(self, frame: Picture, made: Picture) -> None:
        """Goes on after a frame and the picture that was made of it before."""
        self.find_motion(frame.rgb)
        self.anchor = Anchor(frame, pixels(made))

    def steadied(self, frame: Picture, made: Picture) -> Picture:
        """The picture of a frame with what the anchor still holds of it."""
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
    """A frame, the picture that was made of it, and where its contents are by now.

    Args:
        frame: As it was read.
        made: Levels of 255, float32 H×W×3.
    """

    def __init__(self, frame: Picture, made: np.ndarray) -> None:
        self.made = made
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
        known = self.seen * (cv2.blur(np.abs(off), (SMALL, SMALL)) < unlike)
        soft: np.ndarray = cv2.blur(cv2.erode(known, np.ones((SMALL, SMALL))), (SMALL, SMALL))
        return soft

    def onto(self, own: np.ndarray, known: np.ndarray) -> np.ndarray:
        """A picture, H×W×3, with the anchor's strokes where it is known."""
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
    """What of a frame is finer than light and shade."""
    grey = grey.astype(np.float32)
    fine: np.ndarray = grey - cv2.blur(grey, (LARGE, LARGE))
    return fine
