"""A video file as a clip: decoded frames, and the packets of streams that are copied."""

import math
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import torch
from av.bitstream import BitStreamFilterContext
from av.packet import Packet
from av.video.stream import VideoStream

from ...errors import InputError, InvalidVideo, UnsupportedFormat
from ...inference import images
from ...inference.images import Picture
from ..colours import ToRgb, colours_of
from .clip import Clip, Frame

COPIED = ("audio", "subtitle")
MISSING_SECONDS = 0.5  # a file that lacks more than this at its end is reported as truncated


class VideoFile(Clip):
    """A video file that FFmpeg can read. Of several video streams, the first that is not a cover picture is used.

    Raises:
        InvalidVideo: It is not a video, or nothing of it can be decoded.
        UnsupportedFormat: There is no decoder for its codec, or its colour space is not supported.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self.container = av.open(str(path), metadata_errors="replace")
        except (av.FFmpegError, ValueError) as error:
            raise InvalidVideo(f"{path}: {why_not_opened(error)}") from error
        try:
            self.stream = self.find_video()
            first = self.first_frame()
            self.colours = colours_of(first)
        except InputError as error:
            self.close()
            raise type(error)(f"{path}: {error}") from error
        self.turns = round(first.rotation / 90) % 4
        self.to_rgb = ToRgb(first.width, first.height)
        self.time_base = self.stream.time_base or Fraction(1, 90_000)
        self.rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
        self.count = self.stream.frames or self.estimated_count()
        shape = self.stream.sample_aspect_ratio or Fraction(1)
        self.aspect = 1 / shape if self.turns % 2 else shape
        self.copied = [each for each in self.container.streams if each.type in COPIED and each.time_base]
        self.unpack = {
            each.index: BitStreamFilterContext("aac_adtstoasc", each) for each in self.copied if has_headers(each)
        }
        self.left_out = 0  # damaged packets of sound
        self.omitted = [
            f"stream {each.index} ({each.type})"
            for each in self.container.streams
            if each not in self.copied and each is not self.stream and not chapters(each)
        ]

    def find_video(self) -> VideoStream:
        """The stream to be decoded."""
        streams = [each for each in self.container.streams.video if not is_cover(each)]
        if not streams:
            raise InvalidVideo("there is no video in this file")
        if streams[0].codec_context is None:
            raise UnsupportedFormat("this FFmpeg has no decoder for its codec: convert it to H.264 first")
        streams[0].thread_type = "AUTO"
        # Otherwise FFmpeg would drop all frames from a damaged packet to the next key frame.
        streams[0].codec_context.flags |= av.codec.context.Flags.output_corrupt
        return streams[0]

    def first_frame(self) -> av.VideoFrame:
        """The first frame that can be decoded, read through a container of its own."""
        decoded = None
        with av.open(str(self.path), metadata_errors="replace") as container:
            try:
                for packet in container.demux(container.streams[self.stream.index]):
                    if decoded := next(iter(decode(packet) or []), None):
                        break
            except av.FFmpegError:
                decoded = None
        if decoded is None:
            raise InvalidVideo("no frame of it can be decoded: it is damaged, or encrypted")
        images.check_size(decoded.width, decoded.height, images.MAX_PIXELS, 1)
        return decoded

    def estimated_count(self) -> int | None:
        """Number of frames, computed from duration and rate."""
        return round(self.container.duration / av.time_base * self.rate) if self.container.duration else None

    def __iter__(self) -> Iterator[Frame | Packet]:
        """See the base class."""
        frames, end = Frames(self), 0.0
        try:
            for packet in self.container.demux(self.stream, *self.copied):
                if packet.dts is not None or packet.pts is not None:
                    end = max(end, end_of(packet))
                if packet.stream is self.stream:  # the stream_index of the empty packet at the end is always 0
                    yield from frames.of(packet)
                elif packet.size:
                    yield from self.unpacked(packet)
        except av.FFmpegError as error:
            self.faults.append(f"{self.path}: cannot be read further than {end:.1f} s: {error.strerror}")
            yield from frames.rest()
        if self.repeated:
            self.faults.append(f"{self.path}: {self.repeated} damaged frames, each replaced by the one before")
        if self.left_out:
            self.faults.append(f"{self.path}: {self.left_out} damaged packets of sound, left out")
        self.check_whole(end)

    def unpacked(self, packet: Packet) -> list[Packet]:
        """A packet of a copied stream in the form that all containers hold; nothing if it is damaged."""
        unpack = self.unpack.get(packet.stream_index)
        try:
            return unpack.filter(packet) if unpack else [packet]
        except av.FFmpegError:
            self.left_out += 1
            return []

    def check_whole(self, end: float) -> None:
        """Adds a fault if the file ends long before its declared duration."""
        start = (self.container.start_time or 0) / av.time_base
        duration = (self.container.duration or 0) / av.time_base
        if start + duration - end > MISSING_SECONDS and not self.faults:
            self.faults.append(
                f"{self.path}: truncated, it ends after {end - start:.1f} of {duration:.1f} s; so does the result"
            )

    def close(self) -> None:
        """See the base class."""
        self.container.close()


class Frames:
    """Decodes packets, and replaces frames that cannot be decoded.

    A damaged packet leaves a gap of one frame or, if it was a key frame, of all frames up to the next one. The gap is
    filled by repeating the frame before. A gap without an error is left: some codecs have packets without a picture.
    """

    def __init__(self, clip: VideoFile) -> None:
        self.clip = clip
        self.expected: deque[int] = deque()  # times of packets whose frames are not decoded yet, sorted
        self.failed = False
        self.last: Frame | None = None

    def of(self, packet: Packet) -> Iterator[Frame]:
        """The frames that a packet completes; for the empty packet at the end, all remaining frames."""
        if packet.pts is not None and packet.size:
            self.expected = deque(sorted([*self.expected, packet.pts]))
        decoded = decode(packet)
        if decoded is None:
            self.failed = True
        for frame in decoded or ():
            yield from self.complete(frame)
        if not packet.size:
            yield from self.fill(math.inf)

    def rest(self) -> Iterator[Frame]:
        """The frames that the decoder still holds."""
        for frame in decode(None, self.clip.stream) or ():
            yield from self.complete(frame)

    def complete(self, frame: av.VideoFrame) -> Iterator[Frame]:
        """Repetitions for the missing frames before a frame, then the frame itself.

        A frame that refers to a damaged one is used as it is, as players do: repeating one picture up to the next key
        frame would be worse.
        """
        pts = self.time_of(frame)
        yield from self.fill(pts)
        while self.expected and self.expected[0] <= pts:
            self.expected.popleft()
        if frame.is_corrupt and self.last is None:
            return  # in a file cut before a key frame, nothing can be decoded yet
        rgb = torch.rot90(self.clip.to_rgb(frame), self.clip.turns, (1, 2)).contiguous()
        self.last = Frame(Picture(rgb), pts, frame.duration or 0)
        yield self.last

    def time_of(self, frame: av.VideoFrame) -> int:
        """The presentation time of a frame; always later than that of the frame before."""
        pts = frame.pts if frame.pts is not None else frame.dts
        if self.last is None:
            self.clip.start = pts or 0
            return self.clip.start
        usual = max(1, self.last.duration or round(1 / (self.clip.rate * self.clip.time_base)))
        return self.last.pts + usual if pts is None else max(pts, self.last.pts + 1)

    def fill(self, until: float) -> Iterator[Frame]:
        """Repetitions of the last frame, one for each failed frame before a time."""
        filled = False
        while self.expected and self.expected[0] < until:
            pts = self.expected.popleft()
            if self.failed and self.last and pts > self.last.pts:
                filled = True
                yield self.repeated(pts, self.last.duration)
        self.failed = self.failed and not filled

    def repeated(self, pts: int, duration: int) -> Frame:
        """The last frame again, at another time."""
        assert self.last
        self.clip.repeated += 1
        self.last = Frame(self.last.picture, pts, duration)
        return self.last


def decode(packet: Packet | None, stream: VideoStream | None = None) -> list[av.VideoFrame] | None:
    """The frames of a packet; None if it is damaged."""
    try:
        return stream.decode(None) if packet is None and stream else packet.decode()  # type: ignore
    except av.FFmpegError:
        return None


def end_of(packet: Packet) -> float:
    """The end time of a packet, in seconds."""
    start = packet.pts if packet.pts is not None else packet.dts or 0
    return float((start + (packet.duration or 0)) * packet.time_base)


def is_cover(stream: VideoStream) -> bool:
    """Whether a stream is a cover picture."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def has_headers(stream: av.stream.Stream) -> bool:
    """Whether a stream is AAC with a header in each packet, as in MPEG-TS; MP4 has one header for all."""
    context = stream.codec_context
    return isinstance(context, av.AudioCodecContext) and context.name == "aac" and not context.extradata


def chapters(stream: av.stream.Stream) -> bool:
    """Whether a stream holds the titles of chapters, which are copied as chapters."""
    return stream.type == "data" and bool(stream.container.chapters())


def why_not_opened(error: Exception) -> str:
    """Describes why FFmpeg does not open a file."""
    if isinstance(error, av.InvalidDataError):
        return "this is not a video, or it is truncated: the index at its end is missing"
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"
