"""A video file as a result: encoded frames, copied sound and subtitles.

While it is worked on, an MP4 is written in fragments, so that it can be played even if the machine stops. At the end
its packets are copied into a plain file with its index in front, with the source's chapters and metadata.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import torch
from av.bitstream import BitStreamFilterContext
from av.packet import Packet
from torch import Tensor

from ...errors import InvalidOption
from ...files import move_into_place
from ...inference.images import Picture
from ..clips import Clip, Frame, VideoFile
from ..colours import FromRgb
from ..options import VideoOptions
from .sink import Sink

# Encoder, default crf, its other options.
ENCODERS: dict[str, tuple[str, int | None, dict[str, str]]] = {
    "h264": ("libx264", 20, {"preset": "fast"}),
    "hevc": ("libx265", 22, {"preset": "fast", "x265-params": "log-level=error"}),
    "av1": ("libsvtav1", 30, {"preset": "8"}),
    "vp9": ("libvpx-vp9", 30, {"b": "0", "row-mt": "1", "deadline": "realtime", "cpu-used": "4"}),
    "ffv1": ("ffv1", None, {}),
}
MOST_LOSSY = {"h264": 51, "hevc": 51}
HOLDS = {
    ".mp4": ("h264", "hevc", "av1", "vp9"),
    ".m4v": ("h264", "hevc", "av1", "vp9"),
    ".mov": ("h264", "hevc"),
    ".mkv": tuple(ENCODERS),
    ".webm": ("vp9", "av1"),
}
MUXERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
KEY_FRAMES = 48  # maximum number of frames between key frames, from which --resume continues
PACKED = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}  # what makes of a file's packets an encoder's
OWN_METADATA = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}


class VideoSink(Sink):
    """A video file.

    Args:
        clip: The source, whose times, colours, sound, subtitles, chapters and metadata are kept.
        target: The file; its ending says of which container.
        options: Codec and crf.
        origin: Digest of source, networks and options; a partial file of another origin is not resumed.
        resume: Go on at the last key frame of the part that an earlier run left.

    Raises:
        InvalidOption: The container does not hold the codec, or one of the streams to be copied; or the part is of
            another origin.
    """

    def __init__(self, clip: Clip, target: Path, options: VideoOptions, origin: str, *, resume: bool) -> None:
        super().__init__(target)
        self.clip = clip
        self.suffix = target.suffix.lower()
        self.codec = options.codec or HOLDS[self.suffix][0]
        if self.codec not in HOLDS[self.suffix]:
            raise InvalidOption(f"codec: {self.suffix} holds {', '.join(HOLDS[self.suffix])}, not {self.codec}")
        self.crf = chosen_crf(self.codec, options.crf)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.origin = f"{origin} {self.codec} {self.crf} {av.__version__}"
        self.earlier = Earlier(self.part, self.origin) if resume and self.part.exists() else None
        self.done = self.earlier.frames if self.earlier else 0
        self.skipped: Counter[int] = Counter(self.earlier.copied if self.earlier else ())
        self.waiting: list[Packet] = []  # copied, before the first frame says the size
        self.container: av.container.OutputContainer | None = None
        check_holds(clip, target)

    def last(self) -> Picture:
        """See the base class."""
        with VideoFile(self.part) as clip:
            frames = (each for each in clip if isinstance(each, Frame))
            return next(islice(frames, self.done - 1, None)).picture

    def write(self, frame: Frame) -> None:
        """See the base class."""
        rgb = frame.picture.opaque()
        if self.container is None:
            self.start(rgb)
        encoded = self.from_rgb(even(rgb) if self.from_rgb.pixel_format == "yuv420p" else rgb)
        encoded.time_base, encoded.pts = self.clip.time_base, frame.pts
        encoded.duration = frame.duration
        encoded.pict_type = 0  # the encoder chooses
        self.mux_encoded(self.stream.encode(encoded))

    def copy(self, packet: Packet) -> None:
        """See the base class."""
        if self.skipped[packet.stream_index] > 0:
            self.skipped[packet.stream_index] -= 1
        elif self.container is None:
            self.waiting.append(packet)
        else:
            packet.stream = self.streams[packet.stream_index]
            self.container.mux(packet)

    def start(self, rgb: Tensor) -> None:
        """Opens the file for frames such as this, and writes what was there before it."""
        path = self.part if self.earlier is None else self.part.with_suffix(f".resumed{self.suffix}")
        fragments = {"movflags": "frag_keyframe+delay_moov"} if MUXERS[self.suffix] in ("mp4", "mov") else {}
        container = av.open(str(path), "w", format=MUXERS[self.suffix], options=fragments)
        container.metadata["comment"] = self.origin
        self.add_video(container, rgb)
        self.streams = {each.index: copied_stream(container, each) for each in self.clip.copied}
        container.start_encoding()
        self.container, self.last_dts = container, -(2**62)
        if self.earlier:
            for packet in self.earlier.packets():
                self.mux_earlier(packet)
            path.replace(self.part)  # still open; only now is what the earlier run left in it whole
        waiting, self.waiting = self.waiting, []
        for packet in waiting:
            self.copy(packet)

    def add_video(self, container: av.container.OutputContainer, rgb: Tensor) -> None:
        """Adds the stream of encoded frames."""
        encoder, _, options = ENCODERS[self.codec]
        colours = self.clip.colours
        quality = {"crf": str(self.crf), "g": str(KEY_FRAMES)} if self.crf is not None else {"g": "1"}
        self.from_rgb = FromRgb("bgr0" if self.codec == "ffv1" else "yuv420p", colours)
        stream: Any = container.add_stream(encoder, rate=self.clip.rate, options=options | quality)
        shape = even(rgb).shape if self.from_rgb.pixel_format == "yuv420p" else rgb.shape
        stream.height, stream.width = shape[1:]
        stream.pix_fmt = self.from_rgb.pixel_format
        stream.time_base = self.clip.time_base
        context = stream.codec_context
        context.time_base = self.clip.time_base
        context.sample_aspect_ratio = self.clip.aspect
        context.color_primaries, context.color_trc = colours.primaries, colours.transfer
        if self.codec != "ffv1":
            context.colorspace, context.color_range = colours.matrix, colours.range
        if self.codec == "hevc" and MUXERS[self.suffix] != "matroska":
            context.codec_tag = "hvc1"  # the one that Apple's players know
        if isinstance(self.clip, VideoFile):
            stream.metadata.update(worth_keeping(self.clip.stream.metadata))
        self.stream = stream

    def mux_encoded(self, packets: list[Packet]) -> None:
        """Writes packets of the encoder; after resuming, its first ones may lie before the last ones of the earlier."""
        assert self.container
        for packet in packets:
            if packet.dts is not None and packet.dts <= self.last_dts:
                packet.dts = self.last_dts + 1
            self.container.mux(packet)

    def mux_earlier(self, packet: Packet) -> None:
        """Writes a packet of the earlier run, whose streams stand in the order of these."""
        assert self.container
        stream = self.container.streams[packet.stream_index]
        if stream is self.stream and packet.dts is not None:
            self.last_dts = round(packet.dts * packet.time_base / self.clip.time_base)
        packet.stream = stream
        self.container.mux(packet)

    def finish(self) -> None:
        """See the base class."""
        if self.container is None:
            return
        try:
            self.mux_encoded(self.stream.encode(None))
        finally:
            self.container.close()

    def publish(self) -> None:
        """See the base class."""
        whole = self.part.with_suffix(f".whole{self.suffix}")
        flags = {"movflags": "faststart"} if MUXERS[self.suffix] in ("mp4", "mov") else {}
        try:
            with (
                av.open(str(self.part)) as given,
                av.open(str(whole), "w", format=MUXERS[self.suffix], options=flags) as made,
            ):
                if isinstance(self.clip, VideoFile):
                    made.metadata.update(worth_keeping(self.clip.container.metadata))
                    made.set_chapters(self.clip.container.chapters())
                remux(given, made)
            move_into_place(whole, self.target)
        finally:
            whole.unlink(missing_ok=True)
        self.part.unlink()


class Earlier:
    """What an earlier run left: all before its last key frame.

    Attributes:
        frames: Number of frames in it.
        copied: Number of packets in it by the index of their stream.
    """

    def __init__(self, part: Path, origin: str) -> None:
        self.part = part
        self.packed = None
        try:
            with av.open(str(part)) as container:
                if container.metadata.get("comment") != origin:
                    raise InvalidOption(
                        f"{part}: made with other options or of another file; start anew, without --resume"
                    )
                self.count(container)
        except av.FFmpegError:
            self.frames, self.total, self.copied = 0, 0, Counter[int]()

    def count(self, container: av.container.InputContainer) -> None:
        """Counts packets up to the last key frame."""
        counted: Counter[int] = Counter()
        self.frames, self.total, self.copied = 0, 0, Counter[int]()
        for packet in container.demux():
            if not packet.size:
                continue
            if packet.stream_index == 0 and packet.is_keyframe:
                self.frames, self.total, self.copied = counted[0], counted.total(), counted.copy()
            counted[packet.stream_index] += 1

    def packets(self) -> Iterator[Packet]:
        """All of it, the video as the encoder made it."""
        with av.open(str(self.part)) as container:
            video = container.streams.video[0]
            name = PACKED.get(video.codec_context.name)
            unpack = BitStreamFilterContext(name, video) if name else None
            left = self.total
            for packet in container.demux():
                if not left:
                    return
                if packet.size:
                    left -= 1
                    yield from unpack.filter(packet) if unpack and packet.stream_index == 0 else [packet]


def remux(given: av.container.InputContainer, made: av.container.OutputContainer) -> None:
    """Copies all packets."""
    streams = {each.index: copied_stream(made, each) for each in given.streams if each.type != "data"}
    for packet in given.demux(*(given.streams[index] for index in streams)):
        if packet.size:
            packet.stream = streams[packet.stream_index]
            made.mux(packet)


def copied_stream(container: av.container.OutputContainer, template: Any) -> Any:
    """A stream for the packets of another, with its language, title and disposition."""
    stream = container.add_stream_from_template(template, opaque=True)
    stream.metadata.update(worth_keeping(template.metadata))
    stream.disposition = template.disposition
    return stream


def worth_keeping(metadata: dict[str, str]) -> dict[str, str]:
    """Metadata without what a file says of its own making."""
    return {key: value for key, value in metadata.items() if key.lower() not in OWN_METADATA}


def check_holds(clip: Clip, target: Path) -> None:
    """Raises InvalidOption if a container cannot hold one of the streams to be copied."""
    muxer = MUXERS[target.suffix.lower()]
    for stream in clip.copied:
        trial = av.open("/dev/null", "w", format=muxer)
        try:
            copied_stream(trial, stream)
            trial.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            name = getattr(stream.codec_context, "name", "unknown")
            raise InvalidOption(
                f"{target}: {target.suffix} does not hold stream {stream.index} of {clip.path}, "
                f"{stream.type} ({name}): name the result .mkv"
            ) from error
        finally:
            trial.close()


def chosen_crf(codec: str, crf: int | None) -> int | None:
    """The crf of a codec. Raises InvalidOption if it is over the codec's most, or the codec is lossless."""
    default = ENCODERS[codec][1]
    if crf is not None and default is None:
        raise InvalidOption(f"crf: {codec} is lossless and has none")
    if crf is not None and crf > MOST_LOSSY.get(codec, 63):
        raise InvalidOption(f"crf: {codec} takes 0 to {MOST_LOSSY[codec]}, not {crf}")
    return default if crf is None else crf


def even(rgb: Tensor) -> Tensor:
    """A picture, 3×H×W, of even height and width, as 4:2:0 asks for: an odd one's last row or column is repeated."""
    _, height, width = rgb.shape
    if height % 2:
        rgb = torch.cat([rgb, rgb[:, -1:]], dim=1)
    return torch.cat([rgb, rgb[:, :, -1:]], dim=2) if width % 2 else rgb
