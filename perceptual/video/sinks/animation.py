"""Animated GIF, PNG and WebP as results."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.filter import Graph

from ...files import move_into_place
from ..clips import Clip, Frame
from ..colours import ANY_UNIT
from .sink import Sink

# Encoder, pixel format, and the name of the muxer's option for the number of plays.
KINDS = {
    ".gif": ("gif", "pal8", "loop"),
    ".png": ("apng", "rgba", "plays"),
    ".apng": ("apng", "rgba", "plays"),
    ".webp": ("libwebp_anim", "bgra", "loop"),
}
UNITS = {".gif": Fraction(1, 100)}  # of time; of the others, milliseconds
LEAST_SECONDS = Fraction(1, 50)  # in a GIF: what is shorter, browsers show for a tenth of a second


class AnimationSink(Sink):
    """An image of several frames.

    A GIF gets the best 255 colours of each frame, and no more than 50 frames a second, which is all that it can hold.

    Args:
        clip: The source, whose plays and alpha are kept.
        target: The file; its ending says of which kind.
        quality: From 1 to 100, of WebP.
    """

    def __init__(self, clip: Clip, target: Path, quality: int) -> None:
        super().__init__(target)
        self.clip = clip
        self.encoder, self.pixel_format, plays = KINDS[target.suffix.lower()]
        self.unit = UNITS.get(target.suffix.lower(), Fraction(1, 1000))
        self.quality = quality
        gif = self.encoder == "gif"
        # GIF counts the repetitions, and FFmpeg's -1 is none.
        count = (-1 if clip.plays == 1 else max(0, clip.plays - 1)) if gif else clip.plays
        target.parent.mkdir(parents=True, exist_ok=True)
        muxer = {"libwebp_anim": "webp"}.get(self.encoder, self.encoder)
        options = {plays: str(count)}
        if clip.last and self.encoder != "libwebp_anim":
            options["final_delay"] = str(round(clip.last / self.unit)) if gif else f"{float(clip.last):.3f}"
        self.container = av.open(str(self.part), "w", format=muxer, options=options)
        self.stream: Any = None
        self.graph: Graph | None = None
        self.written = -LEAST_SECONDS

    def write(self, frame: Frame) -> None:
        """See the base class."""
        time = frame.pts * self.clip.time_base
        if self.encoder == "gif" and time - self.written < LEAST_SECONDS:
            return
        self.written = time
        picture = frame.picture if self.clip.transparent else type(frame.picture)(frame.picture.rgb)
        pixels = np.asarray(picture.to_pil().convert("RGBA"))
        encoded = self.prepared(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgba"))
        encoded.time_base = self.unit
        encoded.pts = round(time / self.unit)
        stream = self.stream or self.start(encoded)
        self.container.mux(stream.encode(encoded))

    def start(self, frame: av.VideoFrame) -> Any:
        """The stream, made for the first frame's size."""
        options = {"quality": str(self.quality)} if self.encoder == "libwebp_anim" else {}
        stream: Any = self.container.add_stream(self.encoder, rate=self.clip.rate, options=options)
        stream.width, stream.height = frame.width, frame.height
        stream.pix_fmt = self.pixel_format
        stream.time_base = stream.codec_context.time_base = self.unit
        self.stream = stream
        return stream

    def prepared(self, frame: av.VideoFrame) -> av.VideoFrame:
        """A frame, rgba, in the encoder's pixel format."""
        if self.graph is None:
            self.graph = palette_graph(frame) if self.encoder == "gif" else format_graph(frame, self.pixel_format)
        self.graph.vpush(frame)
        return self.graph.vpull()

    def finish(self) -> None:
        """See the base class."""
        if self.stream:
            self.container.mux(self.stream.encode(None))
        self.container.close()
        if self.encoder == "libwebp_anim" and self.clip.last:
            set_last_duration(self.part, round(1000 * self.clip.last))

    def publish(self) -> None:
        """See the base class."""
        move_into_place(self.part, self.target)


def set_last_duration(path: Path, milliseconds: int) -> None:
    """Writes into an animated WebP for how long its last frame is shown: the encoder takes the mean of the others."""
    with path.open("r+b") as file:
        place, last = 12, None  # after the RIFF header stand chunks: name, size, content
        while len(head := file.read(8) if file.seek(place) else b"") == 8:
            if head[:4] == b"ANMF":
                last = place
            size = int.from_bytes(head[4:], "little")
            place += 8 + size + size % 2
        if last is not None:
            file.seek(last + 8 + 12)
            file.write(milliseconds.to_bytes(3, "little"))


def palette_graph(frame: av.VideoFrame) -> Graph:
    """Chooses 255 colours for each frame by itself, and dithers."""
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=ANY_UNIT)
    split = graph.add("split")
    palette = graph.add("palettegen", "stats_mode=single")
    use = graph.add("paletteuse", "new=1:dither=sierra2_4a")
    source.link_to(split)
    split.link_to(palette, 0, 0)
    split.link_to(use, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def format_graph(frame: av.VideoFrame, pixel_format: str) -> Graph:
    """Orders the bytes in another way."""
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=ANY_UNIT)
    graph.link_nodes(source, graph.add("format", pixel_format), graph.add("buffersink")).configure()
    return graph
