"""Converts between the YCbCr of videos and RGB, with the right matrix and range.

FFmpeg's filter ``scale`` does the conversion, exact to one level of 255. For a file that does not state its matrix,
this module assumes BT.709 for high definition and BT.601 below, as players do.
"""

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import torch
from av.filter import Graph
from torch import Tensor

from ..errors import UnsupportedFormat

# The names of matrices in FFmpeg's filters, by their numbers in H.273.
MATRICES = {1: "bt709", 4: "fcc", 5: "bt470", 6: "smpte170m", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
RGB, UNSPECIFIED, BT709, SMPTE170M = 0, 2, 1, 6
LIMITED, FULL = 1, 2
HIGH_DEFINITION = 720  # rows
QUALITY = "flags=accurate_rnd+full_chroma_int+full_chroma_inp+bicubic"
ANY_UNIT = Fraction(1, 1000)  # the filters used here ignore time


@dataclass(frozen=True)
class Colours:
    """The colour space of a video, in the numbers of H.273; ``range`` is 1 for limited, 2 for full."""

    matrix: int
    range: int
    primaries: int
    transfer: int


VIDEO_COLOURS = Colours(BT709, LIMITED, BT709, BT709)  # for results whose source is not a video


def colours_of(frame: av.VideoFrame) -> Colours:
    """The colour space of a decoded frame; missing values are replaced by those that players assume.

    Raises:
        UnsupportedFormat: The matrix is not supported.
    """
    if frame.format.is_rgb:
        return VIDEO_COLOURS
    matrix = int(frame.colorspace)
    if matrix in (RGB, UNSPECIFIED):
        matrix = BT709 if min(frame.height, frame.width) >= HIGH_DEFINITION else SMPTE170M
    if matrix not in MATRICES:
        raise UnsupportedFormat(f"its colour space is not supported (matrix {matrix} of H.273)")
    full = frame.color_range == FULL or frame.format.name.startswith("yuvj")
    return Colours(matrix, FULL if full else LIMITED, int(frame.color_primaries), int(frame.color_trc))


class ToRgb:
    """Converts decoded frames of any format to RGB of one size; does not deinterlace."""

    def __init__(self, width: int, height: int) -> None:
        self.size = width, height
        self.kind: tuple[object, ...] = ()

    def __call__(self, frame: av.VideoFrame) -> Tensor:
        """Maps a frame to uint8, 3×H×W. Raises UnsupportedFormat as :func:`colours_of`."""
        colours = colours_of(frame)
        kind = (frame.format.name, frame.width, frame.height, colours)
        if kind != self.kind:
            width, height = self.size
            matrix = "" if frame.format.is_rgb else f":in_color_matrix={MATRICES[colours.matrix]}"
            source_range = "pc" if frame.format.is_rgb or colours.range == FULL else "tv"
            scale = f"w={width}:h={height}:{QUALITY}{matrix}:in_range={source_range}:out_range=pc"
            self.graph, self.kind = chain(frame, ("scale", scale), ("format", "gbrp")), kind
        self.graph.vpush(frame)
        return rgb_of(self.graph.vpull())


class FromRgb:
    """Converts RGB to frames of a pixel format and colour space."""

    def __init__(self, pixel_format: str, colours: Colours) -> None:
        self.pixel_format = pixel_format
        self.colours = colours
        self.graph: Graph | None = None

    def __call__(self, rgb: Tensor) -> av.VideoFrame:
        """Maps uint8, 3×H×W, to a frame; the size must be the same in all calls."""
        frame = frame_of(rgb)
        if self.graph is None:
            target_range = "pc" if self.colours.range == FULL else "tv"
            matrix = MATRICES[self.colours.matrix]
            scale = f"{QUALITY}:out_color_matrix={matrix}:in_range=pc:out_range={target_range}"
            self.graph = chain(frame, ("scale", scale), ("format", self.pixel_format))
        self.graph.vpush(frame)
        return self.graph.vpull()


def chain(frame: av.VideoFrame, *filters: tuple[str, str]) -> Graph:
    """A chain of filters for frames of the same size and format as ``frame``."""
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=ANY_UNIT)
    nodes = [graph.add(name, arguments) for name, arguments in filters]
    graph.link_nodes(source, *nodes, graph.add("buffersink")).configure()
    return graph


def rgb_of(frame: av.VideoFrame) -> Tensor:
    """The pixels of a frame of format gbrp, uint8 3×H×W."""
    green, blue, red = (lines(plane)[:, : frame.width] for plane in frame.planes)
    return torch.from_numpy(np.stack([red, green, blue]))


def frame_of(rgb: Tensor) -> av.VideoFrame:
    """A frame of format gbrp from pixels, uint8 3×H×W."""
    _, height, width = rgb.shape
    frame = av.VideoFrame(width, height, "gbrp")
    for plane, channel in zip(frame.planes, rgb[[1, 2, 0]].numpy(), strict=True):
        lines(plane)[:, :width] = channel
    frame.pts = 0
    return frame


def lines(plane: av.video.plane.VideoPlane) -> np.ndarray:
    """A view of the bytes of a plane, H×(bytes per line)."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
