"""Animated GIF, PNG and WebP as results."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.filter import Graph

from ...errors import InvalidOption
from ...files import move_into_place
from ..clips import Clip, Frame
from ..colours import ANY_UNIT, chain
from .sink import Sink

# By ending: the encoder, its pixel format, and the muxer's option for the number of plays.
KINDS = {
    ".gif": ("gif", "pal8", "loop"),
    ".png": ("apng", "rgba", "plays"),
    ".apng": ("apng", "rgba", "plays"),
    ".webp": ("libwebp_anim", "bgra", "loop"),
}
UNITS = {".gif": Fraction(1, 100)}  # of time, in seconds; for the others a millisecond
LEAST_SECONDS = Fraction(1, 50)  # in a GIF: browsers show a frame of a shorter duration for a tenth of a second


class AnimationSink(Sink):
    """An image of several frames.

    A GIF gets the best 255 colours for each frame, and at most 50 frames a second, the limits of the format.

    Args:
        clip: The source; its number of plays and its alpha are kept.
        target: The file; its ending chooses the format.
        quality: From 1 to 100, of WebP.
    """

    def __init__(self, clip: Clip, target: Path, quality: int) -> None:
        super().__init__(target)
        self.clip = clip
        self.encoder, self.pixel_format, plays = KINDS[target.suffix.lower()]
        self.unit = UNITS.get(target.suffix.lower(), Fraction(1, 1000))
        self.quality = quality
        gif = self.encoder == "gif"
        # A GIF stores the number of repetitions; FFmpeg's -1 means none.
        count = (-1 if clip.plays == 1 else max(0, clip.plays - 1)) if gif else clip.plays
        target.parent.mkdir(parents=True, exist_ok=True)
        muxer = {"libwebp_anim": "webp"}.get(self.encoder, self.encoder)
        options = {plays: str(count)}
        if clip.last_duration and self.encoder != "libwebp_anim":
            options["final_delay"] = (
                str(round(clip.last_duration / self.unit)) if gif else f"{float(clip.last_duration):.3f}"
            )
        self.container = av.open(str(self.part), "w", format=muxer, options=options)
        self.stream: Any = None
        self.graph: Graph | None = None
        self.written = -LEAST_SECONDS

    def write(self, frame: Frame) -> None:
        """See the base class."""
        self.check_size(frame.picture)
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
        try:
            packets = stream.encode(encoded)
        except av.ArgumentError as error:
            size = f"{encoded.width} × {encoded.height} pixels"
            raise InvalidOption(f"{self.target}: {self.target.suffix} cannot hold pictures of {size}") from error
        self.container.mux(packets)

    def start(self, frame: av.VideoFrame) -> Any:
        """Adds the stream, of the first frame's size."""
        options = {"quality": str(self.quality)} if self.encoder == "libwebp_anim" else {}
        stream: Any = self.container.add_stream(self.encoder, rate=self.clip.rate, options=options)
        stream.width, stream.height = frame.width, frame.height
        stream.pix_fmt = self.pixel_format
        stream.time_base = stream.codec_context.time_base = self.unit
        self.stream = stream
        return stream

    def prepared(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Converts a frame from rgba to the encoder's pixel format."""
        if self.graph is None:
            self.graph = palette_graph(frame) if self.encoder == "gif" else chain(frame, ("format", self.pixel_format))
        self.graph.vpush(frame)
        return self.graph.vpull()

    def finish(self) -> None:
        """See the base class."""
        if self.stream:
            self.container.mux(self.stream.encode(None))
        self.container.close()
        if self.encoder == "libwebp_anim" and self.clip.last_duration:
            start = self.clip.start * self.clip.time_base
            set_duration(self.part, round(1000 * (self.written + self.clip.last_duration - start)))

    def publish(self) -> None:
        """See the base class."""
        move_into_place(self.part, self.target)


def set_duration(path: Path, milliseconds: int) -> None:
    """Sets how long an animated WebP lasts, by the duration of its last frame.

    FFmpeg's encoder gives that frame the mean duration of the others. It has merged equal frames, also at the end.
    """
    with path.open("r+b") as file:
        frames = list(durations(file))
        if frames:
            place, _ = frames.pop()
            file.seek(place)
            file.write((milliseconds - sum(duration for _, duration in frames)).to_bytes(3, "little"))


def durations(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """The durations of the frames in a WebP, in milliseconds, each with its place in the file."""
    place = 12  # the RIFF header is followed by chunks: name, size, content
    while len(head := file.read(8) if file.seek(place) else b"") == 8:
        if head[:4] == b"ANMF":
            file.seek(place + 8 + 12)
            yield file.tell(), int.from_bytes(file.read(3), "little")
        size = int.from_bytes(head[4:], "little")
        place += 8 + size + size % 2


def palette_graph(frame: av.VideoFrame) -> Graph:
    """Filters that choose 255 colours for each frame separately, and dither."""
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
