"""Clips that tests make, and what they look for in results."""

from fractions import Fraction
from itertools import count

import av
import numpy as np

TIMES = (0, 1, 2, 4, 5, 9, 10, 11, 12, 20, 21, 22, 23, 24, 25, 26, 30, 31, 32, 33, 40, 41, 42, 43, 44, 45)  # in 1/30 s


def pictures(number, width=64, height=48):
    """Frames with a square that moves."""
    for index in range(number):
        frame = np.full((height, width, 3), 60, np.uint8)
        frame[:, :, 0] = np.linspace(0, 255, width, dtype=np.uint8)
        left = 2 * index % (width - 10)
        frame[10:20, left : left + 10] = 230, 200, 40
        yield frame


def make_clip(
    path,
    frames=None,
    *,
    times=TIMES,
    time_base=Fraction(1, 30_000),
    sound="aac",
    sound_first=False,
    timecode=None,
    rotation=0,
    codec="libx264",
    pix_fmt="yuv420p",
    options=None,
    chapters=True,
    matrix=None,
    full=False,
):
    """A video file: frames 3×H×W at times in 1/30 s, a second of sound more or less, chapters, a title."""
    frames = list(pictures(len(times)) if frames is None else frames)
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Holiday"
        audio = container.add_stream(sound, rate=48_000) if sound and sound_first else None
        video = container.add_stream(codec, rate=30, options=options or {"g": "12"})
        if timecode:
            video.metadata["timecode"] = timecode
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt, video.time_base, video.codec_context.time_base = pix_fmt, time_base, time_base
        if matrix:
            video.codec_context.colorspace = matrix
        video.codec_context.color_range = 2 if full else 1
        if rotation:
            video.set_display_rotation(rotation)
        audio = audio or (container.add_stream(sound, rate=48_000) if sound else None)
        if audio:
            audio.metadata["language"] = "deu"
        if chapters and path.suffix in (".mp4", ".mkv"):
            container.set_chapters(
                [{"id": 1, "start": 0, "end": 900, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}]
            )
        if audio:
            for packet in sound_packets(audio, (times[-1] + 1) / 30):
                container.mux(packet)
        for time, pixels in zip(times, frames, strict=False):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24") if isinstance(pixels, np.ndarray) else pixels
            frame.pts, frame.time_base = round(time / 30 / time_base), time_base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def sound_packets(stream, seconds):
    """A tone, encoded."""
    for block in count():
        if block * 1024 >= seconds * 48_000:
            yield from stream.encode(None)
            return
        wave = np.sin(np.arange(block * 1024, block * 1024 + 1024) * 440 * 2 * np.pi / 48_000).astype(np.float32)
        layout = stream.codec_context.layout
        frame = av.AudioFrame.from_ndarray(np.stack([wave / 4] * len(layout.channels)), "fltp", layout.name)
        frame.sample_rate, frame.pts, frame.time_base = 48_000, block * 1024, Fraction(1, 48_000)
        yield from stream.encode(frame)


def times_of(path):
    """When each frame is shown, in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.pts * stream.time_base for frame in container.decode(stream)]


def sound_of(path):
    """The samples of all sound, and when they begin."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
        return frames[0].pts * frames[0].time_base, np.concatenate([frame.to_ndarray() for frame in frames], axis=1)


def packets_of(path, kind="audio"):
    """The bytes and times of every packet of the first stream of a kind."""
    with av.open(str(path)) as container:
        stream = next(each for each in container.streams if each.type == kind)
        return [(bytes(each), each.pts * each.time_base) for each in container.demux(stream) if each.size]


def shown(path):
    """All frames as RGB, upright as the file says."""
    from perceptual.video.clips import Frame, open_clip

    with open_clip(path) as clip:
        return [each.picture.rgb for each in clip if isinstance(each, Frame)]
