"""A video file as a result: encoded frames, copied sound and subtitles.

A partial MP4 is written in fragments, so that it can be played even if the machine stops. At the end its packets are
copied to a file without fragments, with the index in front and with the source's chapters and metadata.
"""

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import count, islice
from pathlib import Path
from typing import Any

import av
import torch
from av.bitstream import BitStreamFilterContext
from av.packet import Packet
from torch import Tensor

from ...errors import InvalidOption, InvalidVideo
from ...files import move_into_place
from ...inference.images import Picture
from ...settings import alternatives
from ..clips import Clip, Frame, VideoFile
from ..colours import FromRgb
from ..options import VideoOptions
from .sink import Sink, check_origin

# By codec: the encoder, its default crf, its other options.
ENCODERS: dict[str, tuple[str, int | None, dict[str, str]]] = {
    "h264": ("libx264", 20, {"preset": "fast"}),
    "hevc": ("libx265", 22, {"preset": "fast", "x265-params": "log-level=error"}),
    "av1": ("libsvtav1", 30, {"preset": "8"}),
    "vp9": ("libvpx-vp9", 30, {"b": "0", "row-mt": "1", "deadline": "realtime", "cpu-used": "4"}),
    "ffv1": ("ffv1", None, {}),
}
LEAST_WIDTH = {"hevc": 64}  # pixels; x265 writes past its memory if pictures are narrower, and may crash
HIGHEST_CRF = {"h264": 51, "hevc": 51}
CODECS_IN = {
    ".mp4": ("h264", "hevc", "av1", "vp9"),
    ".m4v": ("h264", "hevc", "av1", "vp9"),
    ".mov": ("h264", "hevc"),
    ".mkv": tuple(ENCODERS),
    ".webm": ("vp9", "av1"),
}
MUXERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
KEY_FRAMES = 48  # maximum number of frames between key frames; --resume continues from one
MOST_REORDERED = 16  # frames that a decoder holds back to bring them into order
# Filters that convert packets of a file to the form in which the encoder writes them.
ANNEX_B = {
    "h264": "h264_mp4toannexb",
    "hevc": "hevc_mp4toannexb",
}
OWN_METADATA = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}


class VideoSink(Sink):
    """A video file.

    Args:
        clip: The source; its times, colours, sound, subtitles, chapters and metadata are kept.
        target: The file; its ending chooses the container.
        options: Codec and crf.
        origin: Digest of source, networks and options; a partial file of another origin is not resumed.
        resume: Continue from the last key frame of the partial file that an earlier run left.

    Raises:
        InvalidOption: The container cannot hold the codec or one of the streams to be copied, the codec cannot encode
            pictures of this size, or the partial file is of another origin.
        InvalidVideo: A stream to be copied has times that are not in order.
    """

    def __init__(self, clip: Clip, target: Path, options: VideoOptions, origin: str, *, resume: bool) -> None:
        super().__init__(target)
        self.clip = clip
        self.suffix = target.suffix.lower()
        self.codec = options.codec or CODECS_IN[self.suffix][0]
        if self.codec not in CODECS_IN[self.suffix]:
            raise InvalidOption(f"codec: {self.suffix} holds {', '.join(CODECS_IN[self.suffix])}, not {self.codec}")
        self.crf = chosen_crf(self.codec, options.crf)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.origin = f"{origin} {self.codec} {self.crf} {av.__version__}"
        earlier = Earlier(self.part, self.origin) if resume and self.part.exists() else None
        self.earlier = earlier if earlier and earlier.total else None
        self.done = self.earlier.frames if self.earlier else 0
        copied = self.earlier.copied if self.earlier else Counter[int]()
        # A part has the video first, then the copied streams; the source has them in any order.
        self.skipped = Counter({each.index: copied[number] for number, each in enumerate(clip.copied, 1)})
        self.waiting: list[Packet] = []  # to be copied once the first frame has set the size
        self.container: av.container.OutputContainer | None = None
        check_holds(clip, target)

    def last(self) -> Picture:
        """See the base class."""
        assert self.earlier
        with VideoFile(self.part) as clip:
            frames = (each for each in clip if isinstance(each, Frame))
            rgb = next(islice(frames, self.done - 1, None)).picture.rgb
        return Picture(rgb[:, : self.earlier.height, : self.earlier.width].contiguous())

    def write(self, frame: Frame) -> None:
        """See the base class."""
        self.check_size(frame.picture)
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
            self.mux_copied(packet)

    def mux_copied(self, packet: Packet) -> None:
        """Writes a packet of a copied stream. Raises InvalidVideo if it is earlier than the one before."""
        assert self.container
        index = packet.stream_index
        packet.stream = self.streams[index]
        try:
            self.container.mux(packet)
        except av.ArgumentError as error:
            raise InvalidVideo(
                f"{self.clip.path}: the times of stream {index} are not in order; "
                f"repair them first, with ffmpeg -i {self.clip.path} -c copy repaired.mp4"
            ) from error

    def start(self, rgb: Tensor) -> None:
        """Opens the file for frames of this size, and writes the packets that come before the first frame."""
        height, width = rgb.shape[1:]
        unfit = InvalidOption(f"codec: {self.codec} cannot encode pictures of {width} × {height} pixels")
        if width < LEAST_WIDTH.get(self.codec, 0):
            raise unfit
        path = self.part if self.earlier is None else self.part.with_suffix(f".resumed{self.suffix}")
        fragments = {"movflags": "frag_keyframe+delay_moov"} if MUXERS[self.suffix] in ("mp4", "mov") else {}
        container = av.open(str(path), "w", format=MUXERS[self.suffix], options=fragments)
        container.metadata["comment"] = f"{self.origin} {width}x{height}"
        self.add_video(container, rgb)
        templates = self.earlier.copied_streams() if self.earlier else self.clip.copied
        self.streams = {
            each.index: copied_stream(container, template)
            for each, template in zip(self.clip.copied, templates, strict=True)
        }
        try:
            container.start_encoding()
        except av.ArgumentError as error:
            raise unfit from error
        self.container, self.last_dts = container, -(2**62)
        if self.earlier:
            for packet in self.earlier.packets(self.clip.start * self.clip.time_base):
                self.mux_earlier(packet)
            path.replace(self.part)  # while it is open: only now does it hold all that the earlier run had written
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
            context.codec_tag = "hvc1"  # the tag that Apple's players require
        if isinstance(self.clip, VideoFile):
            stream.metadata.update(worth_keeping(self.clip.stream.metadata))
        self.stream = stream

    def mux_encoded(self, packets: list[Packet]) -> None:
        """Writes packets of the encoder; moves decoding times that do not follow those of the earlier run."""
        assert self.container
        for packet in packets:
            if packet.dts is not None and packet.dts <= self.last_dts:
                packet.dts = self.last_dts + 1
            self.container.mux(packet)

    def mux_earlier(self, packet: Packet) -> None:
        """Writes a packet of the earlier run, whose streams have the same order."""
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
                av.open(str(self.part)) as source,
                av.open(str(whole), "w", format=MUXERS[self.suffix], options=flags) as result,
            ):
                if isinstance(self.clip, VideoFile):
                    result.metadata.update(worth_keeping(self.clip.container.metadata))
                    result.set_chapters(self.clip.container.chapters())
                remux(source, result)
            move_into_place(whole, self.target)
        finally:
            whole.unlink(missing_ok=True)
        self.part.unlink()


class Earlier:
    """The partial file of an earlier run, up to its last key frame.

    Attributes:
        frames: Number of frames in it.
        copied: Number of packets in it, by stream index.
        total: Number of all packets in it; 0 if it cannot be read.
        width: Of its pictures, in pixels, before their sides were made even.
        height: As ``width``.
    """

    def __init__(self, part: Path, origin: str) -> None:
        self.part = part
        self.frames, self.total, self.copied = 0, 0, Counter[int]()
        self.start = Fraction(0)  # when the first frame is shown, in seconds
        try:
            with av.open(str(part)) as container:
                tags = {name.lower(): value for name, value in container.metadata.items()}  # Matroska's are in capitals
                made_from, _, size = tags.get("comment", "").rpartition(" ")
                check_origin(part, made_from, origin)
                self.width, self.height = map(int, size.split("x"))
                self.count(container)
        except av.FFmpegError:
            self.frames, self.total, self.copied = 0, 0, Counter[int]()

    def count(self, container: av.container.InputContainer) -> None:
        """Counts packets up to the last key frame."""
        counted: Counter[int] = Counter()
        for packet in container.demux(*written(container)):
            if not packet.size:
                continue
            if packet.stream_index == 0 and not counted[0]:
                self.start = (packet.pts or 0) * packet.time_base
            if packet.stream_index == 0 and packet.is_keyframe:
                self.frames, self.total, self.copied = counted[0], counted.total(), counted.copy()
            counted[packet.stream_index] += 1

    def copied_streams(self) -> list[Any]:
        """Its streams other than the video, in the order of the source's."""
        return written(av.open(str(self.part)))[1:]

    def packets(self, start: Fraction) -> Iterator[Packet]:
        """Its packets, those of the video in the form in which the encoder writes them.

        Args:
            start: When the source's first frame is shown, in seconds. Containers without times below zero have moved
                all packets; they are moved back, as the container will do the same again.
        """
        with av.open(str(self.part)) as container:
            video = container.streams.video[0]
            name = ANNEX_B.get(video.codec_context.name)
            unpack = BitStreamFilterContext(name, video) if name else None
            missing = count(-MOST_REORDERED)
            packets = (each for each in container.demux(*written(container)) if each.size)
            for packet in islice(packets, self.total):
                if packet.dts is None:  # Matroska has no decoding times, and FFmpeg guesses none for the first frames
                    packet.dts = round(self.start / packet.time_base) + next(missing)
                move(packet, start - self.start)
                yield from unpack.filter(packet) if unpack and packet.stream_index == 0 else [packet]


def move(packet: Packet, seconds: Fraction) -> None:
    """Makes a packet later."""
    later = round(seconds / packet.time_base)
    packet.pts = None if packet.pts is None else packet.pts + later
    packet.dts = None if packet.dts is None else packet.dts + later


def remux(source: av.container.InputContainer, result: av.container.OutputContainer) -> None:
    """Copies all packets from one container to another."""
    streams = {each.index: copied_stream(result, each) for each in written(source)}
    for packet in source.demux(*written(source)):
        if packet.size:
            packet.stream = streams[packet.stream_index]
            result.mux(packet)


def written(container: av.container.InputContainer) -> list[Any]:
    """The streams of a partial file without those that the muxer adds by itself: chapters and time codes."""
    return [each for each in container.streams if each.type != "data"]


def copied_stream(container: av.container.OutputContainer, template: Any) -> Any:
    """Adds a stream for the packets of another, with its language, title and disposition."""
    stream = container.add_stream_from_template(template, opaque=True)
    if template.type == "video":
        stream.codec_context.framerate = template.average_rate  # of which MP4's time codes are multiples
    stream.metadata.update(worth_keeping(template.metadata))
    stream.disposition = template.disposition
    return stream


def worth_keeping(metadata: dict[str, str]) -> dict[str, str]:
    """Metadata without entries that describe the file itself, such as its encoder."""
    return {key: value for key, value in metadata.items() if key.lower() not in OWN_METADATA}


def check_holds(clip: Clip, target: Path) -> None:
    """Raises InvalidOption if a container cannot hold one of the streams to be copied; names those that hold all."""
    for stream in clip.copied:
        if not holds(target.suffix.lower(), stream):
            endings = [each for each in MUXERS if all(holds(each, copied) for copied in clip.copied)]
            advice = f"name the result {alternatives(endings)}" if endings else "remove the stream from the clip first"
            name = getattr(stream.codec_context, "name", "unknown")
            raise InvalidOption(
                f"{target}: {target.suffix} cannot hold stream {stream.index} of {clip.path}, "
                f"{stream.type} ({name}): {advice}"
            )


def holds(ending: str, stream: Any) -> bool:
    """Whether a container can hold the packets of a stream."""
    trial = av.open("/dev/null", "w", format=MUXERS[ending])
    try:
        copied_stream(trial, stream)
        trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    finally:
        trial.close()
    return True


def chosen_crf(codec: str, crf: int | None) -> int | None:
    """The crf to use, or the codec's default. Raises InvalidOption if it is too high, or the codec is lossless."""
    default = ENCODERS[codec][1]
    if crf is not None and default is None:
        raise InvalidOption(f"crf: {codec} is lossless and has none")
    if crf is not None and crf > HIGHEST_CRF.get(codec, 63):
        raise InvalidOption(f"crf: {codec} takes 0 to {HIGHEST_CRF[codec]}, not {crf}")
    return default if crf is None else crf


def even(rgb: Tensor) -> Tensor:
    """A picture, 3×H×W, of even height and width, which 4:2:0 requires: an odd last row or column is repeated."""
    _, height, width = rgb.shape
    if height % 2:
        rgb = torch.cat([rgb, rgb[:, -1:]], dim=1)
    return torch.cat([rgb, rgb[:, :, -1:]], dim=2) if width % 2 else rgb
