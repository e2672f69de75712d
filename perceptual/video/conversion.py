"""A clip through networks, from file to file."""

import hashlib
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from av.packet import Packet

from ..errors import InvalidOption, InvalidVideo
from ..inference import images
from ..inference.images import Picture
from ..inference.predictor import Predictor
from ..options import StyleOptions, UpscaleOptions
from ..settings import parse, settings_of
from .ahead import ahead
from .clips import Frame, open_clip
from .options import VideoOptions
from .sinks import Sink, open_sink
from .steady import LEVELS, Steady

BATCH = 8  # frames on a GPU; on a CPU, a batch is no faster

Make = Callable[[Sequence[Picture]], list[Picture]]
Progress = Callable[[int, int | None], None]


@dataclass
class VideoReport:
    """The outcome of a conversion.

    Attributes:
        path: The result; after a stopped run the part that is done, which can be played.
        frames: Number of frames in it.
        repeated: Number of damaged frames, which were replaced by the frame before.
        stopped: Whether it was stopped before its end.
        faults: Messages about faults of the source.
        passed_over: Streams of the source that the result does not have.
    """

    path: Path
    frames: int = 0
    repeated: int = 0
    stopped: bool = False
    faults: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


def stylize_video(
    predictor: Predictor,
    source: str | Path,
    target: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    enlarger: Predictor | None = None,
    **options: Any,
) -> VideoReport:
    """Stylizes a video, and keeps its sound, subtitles, chapters, metadata and times.

    Args:
        predictor: Of a network for style.
        source: A video file, an animated GIF, PNG or WebP, or a folder of images.
        target: The result, by its ending: mp4, m4v, mov, mkv, webm, gif, png or apng, webp; without one, a folder. It
            appears when it is whole; before, it is beside it, as ``clip.part.mp4``.
        resume: Go on at the last key frame of what an earlier run left.
        progress: Called with the number of frames done, and the number of all frames if it is known.
        stop: When it is set, the frames done by then are completed to a part that can be played.
        enlarger: Enlarges the stylized frames.
        options: Of :class:`perceptual.video.options.VideoOptions`, by name: ``style="udnie"``, ``codec="hevc"``.

    Raises:
        InputError: The source cannot be read, an option is wrong, or the result cannot hold what it should.
        WeightsError: A network is for another task.
    """
    predictor.require("style")
    wishes = parse(VideoOptions, by_option_name(options))
    style = StyleOptions(**shared(wishes, StyleOptions))
    predictor.conditions([style])  # a wrong style is an error before the work
    networks = [predictor] if enlarger is None else [predictor, enlarger]
    make: Make = partial(stylized, predictor, style)
    if enlarger:
        make = both(make, partial(upscaled, enlarger, UpscaleOptions(**shared(wishes, UpscaleOptions))))
    if wishes.steady != "off":
        make = Steady(make, LEVELS[wishes.steady])
    return convert(Path(source), Path(target), networks, make, wishes, resume, progress, stop)


def upscale_video(
    predictor: Predictor,
    source: str | Path,
    target: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    **options: Any,
) -> VideoReport:
    """Enlarges a video; everything else as :func:`stylize_video`, with a network of super-resolution."""
    predictor.require("super-resolution")
    wishes = parse(VideoOptions, by_option_name(options))
    make = partial(upscaled, predictor, UpscaleOptions(**shared(wishes, UpscaleOptions)))
    return convert(Path(source), Path(target), [predictor], make, wishes, resume, progress, stop)


def convert(
    source: Path,
    target: Path,
    networks: Sequence[Predictor],
    make: Make,
    options: VideoOptions,
    resume: bool,
    progress: Progress | None,
    stop: threading.Event | None,
) -> VideoReport:
    """Reads, converts and writes all frames, in parallel."""
    if target.resolve() == source.resolve():
        raise InvalidOption(f"{target} would overwrite the video; choose another --output")
    batch = BATCH if networks[0].device.type == "cuda" else 1
    with (
        open_clip(source, options.fps) as clip,
        open_sink(clip, target, options, origin(source, networks, options), resume=resume) as sink,
    ):
        report = VideoReport(target, sink.done, passed_over=clip.passed_over)
        before = sink.last() if sink.done else None
        with closing(ahead(pictures(ahead(iter(clip)), make, batch, sink.done, before))) as items:
            write_all(items, sink, report, clip.count, progress, stop)
        report.repeated, report.faults = clip.repeated, clip.faults
        if not report.frames and not report.stopped:
            raise InvalidVideo(f"{source}: no frame of it can be decoded: it is damaged, or encrypted")
        sink.close()
        if report.stopped:
            report.path = sink.part
        else:
            sink.publish()
    return report


def write_all(
    items: Iterator[Frame | Packet],
    sink: Sink,
    report: VideoReport,
    count: int | None,
    progress: Progress | None,
    stop: threading.Event | None,
) -> None:
    """Writes frames and packets until there are no more, or it is stopped."""
    for item in items:
        if isinstance(item, Packet):
            sink.copy(item)
        else:
            sink.write(item)
            report.frames += 1
            if progress:
                progress(report.frames, count)
        if stop and stop.is_set():
            report.stopped = True
            return


def pictures(
    items: Generator[Frame | Packet, None, None], make: Make, size: int, done: int, before: Picture | None
) -> Iterator[Frame | Packet]:
    """Frames with the network's results, and packets unchanged.

    Args:
        items: From the clip.
        make: Runs the network.
        size: Frames in a batch.
        done: Number of frames at the beginning that an earlier run has done; they are left out.
        before: The result of the last of these.
    """
    batch: list[Frame] = []
    with closing(items):
        for item in items:
            if isinstance(item, Packet):
                yield item
            elif done:
                done -= 1
                if not done and before and isinstance(make, Steady):
                    make.begin(item.picture, before)
            else:
                batch.append(item)
                if len(batch) == size:
                    yield from remade(batch, make)
                    batch = []
    yield from remade(batch, make)


def remade(frames: list[Frame], make: Make) -> list[Frame]:
    """Frames with the network's results in place of their pictures."""
    made = make([frame.picture for frame in frames]) if frames else []
    return [replace(frame, picture=picture) for frame, picture in zip(frames, made, strict=True)]


def stylized(predictor: Predictor, options: StyleOptions, given: Sequence[Picture]) -> list[Picture]:
    """Pictures stylized."""
    return predictor.stylize_pictures(given, [options] * len(given))


def upscaled(predictor: Predictor, options: UpscaleOptions, given: Sequence[Picture]) -> list[Picture]:
    """Pictures enlarged."""
    for picture in given[:1]:
        height, width = picture.rgb.shape[1:]
        images.check_size(width, height, images.MAX_PIXELS, predictor.network.scale)
    return predictor.upscale_pictures(given, [options] * len(given))


def both(first: Make, second: Make) -> Make:
    """Runs one after the other."""
    return lambda given: second(first(given))


def by_option_name(options: dict[str, Any]) -> dict[str, Any]:
    """Python arguments by option name, for :func:`perceptual.settings.parse`."""
    return {name.replace("_", "-"): value for name, value in options.items() if value is not None}


def shared(options: VideoOptions, kind: type) -> dict[str, Any]:
    """The options that pictures have too."""
    return {each.name: getattr(options, each.name) for each in settings_of(kind)}


def origin(source: Path, networks: Sequence[Predictor], options: VideoOptions) -> str:
    """A digest of everything that the frames of a result depend on: the source, the networks and the options."""
    digest = hashlib.sha256()
    if source.is_file():
        digest.update(f"{source.resolve()} {source.stat().st_size} {source.stat().st_mtime_ns}".encode())
    for each in networks:
        for name, parameter in each.network.state_dict().items():
            digest.update(name.encode() + parameter.cpu().contiguous().numpy().tobytes())
    digest.update(repr(options).encode())
    return digest.hexdigest()
