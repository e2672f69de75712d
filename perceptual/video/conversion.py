"""Converts a video file with one or two networks."""

import hashlib
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import torch.nn.functional as F
from av.packet import Packet

from ..errors import InvalidOption, InvalidVideo, first_line
from ..inference import images
from ..inference.images import Picture
from ..inference.predictor import Predictor, given
from ..options import StyleOptions, UpscaleOptions, check_task
from ..settings import parse, settings_of
from .ahead import ahead
from .clips import Clip, Frame, open_clip
from .options import VideoOptions
from .sinks import Sink, open_sink
from .steady import LEVELS, Steady

OF_ANY_VIDEO = {"scale", "codec", "crf", "fps"}  # options that are not of pictures
BATCH = 8  # frames on a GPU; on a CPU, a batch is no faster

Transform = Callable[[Sequence[Picture]], list[Picture]]
Begin = Callable[[Picture, Picture], None]
Progress = Callable[[int, int | None], None]


@dataclass
class VideoReport:
    """The outcome of a conversion.

    Attributes:
        path: The result; after a stopped run the partial file, which can be played.
        frames: Number of frames in it.
        repeated: Number of damaged frames, each of which was replaced by the frame before.
        stopped: Whether the conversion was stopped before its end.
        faults: Messages about faults of the source.
        omitted: Names of the streams of the source that the result does not contain.
    """

    path: Path
    frames: int = 0
    repeated: int = 0
    stopped: bool = False
    faults: list[str] = field(default_factory=list)
    omitted: list[str] = field(default_factory=list)


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
        predictor: A style network.
        source: A video file, an animated GIF, PNG or WebP, or a folder of images.
        target: The result. Its ending chooses the format: mp4, m4v, mov, mkv, webm, gif, png, apng or webp; without an
            ending, it is a folder of images. Until it is complete, it is named like ``clip.part.mp4``.
        resume: Continue from the last key frame of the partial file that an earlier run left.
        progress: Called with the number of frames done, and the total number of frames or None.
        stop: When it is set, the partial file is closed, so that it can be played, and the function returns.
        enlarger: A super-resolution network, which enlarges the stylized frames.
        options: Of :class:`perceptual.video.options.VideoOptions`, by name: ``style="udnie"``, ``codec="hevc"``.

    Raises:
        InputError: The source cannot be read, an option is wrong, or the target's format cannot hold a stream.
        WeightsError: A network is for another task.
    """
    predictor.require("style")
    values = given(**options)
    parsed = parse(VideoOptions, values)
    check_used(values, "this network", stylizes=True, enlarges=bool(enlarger))
    check_scale(parsed, enlarger, "this network")
    style = StyleOptions(**shared(parsed, StyleOptions))
    predictor.conditions([style])  # raises if the style is unknown, before any work
    networks = [predictor] if enlarger is None else [predictor, enlarger]
    transform: Transform = partial(stylized, predictor, style)
    begin: Begin | None = None
    if parsed.steady != "off":
        transform = steady = Steady(transform, LEVELS[parsed.steady])
        begin = partial(begin_after, steady, enlarger)
    if enlarger:  # last, as strokes are found by their size in pixels
        transform = chained(transform, partial(upscaled, enlarger, UpscaleOptions(**shared(parsed, UpscaleOptions))))
    return convert(Path(source), Path(target), networks, transform, parsed, resume, progress, stop, begin)


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
    """Enlarges a video; everything else as :func:`stylize_video`, with a super-resolution network."""
    predictor.require("super-resolution")
    values = given(**options)
    parsed = parse(VideoOptions, values)
    check_used(values, "this network", stylizes=False, enlarges=True)
    check_scale(parsed, predictor, "this network")
    transform = partial(upscaled, predictor, UpscaleOptions(**shared(parsed, UpscaleOptions)))
    return convert(Path(source), Path(target), [predictor], transform, parsed, resume, progress, stop)


def check_used(options: Iterable[str], model: str, *, stylizes: bool, enlarges: bool) -> None:
    """Raises InvalidOption for an option that none of the networks uses; ``model`` names them in the message."""
    names = [name for name in options if name not in OF_ANY_VIDEO]
    if not stylizes:
        check_task(names, UpscaleOptions, model)
    elif not enlarges:
        check_task([name for name in names if name != "steady"], StyleOptions, model)


def check_scale(options: VideoOptions, enlarger: Predictor | None, model: str) -> None:
    """Raises InvalidOption if the network does not enlarge by the given scale; ``model`` names it in the message."""
    if options.scale is None:
        return
    if enlarger is None:
        raise InvalidOption(f"scale: {model} does not enlarge; give a super-resolution network as the enlarger")
    if options.scale != enlarger.network.scale:
        raise InvalidOption(f"scale: {model} enlarges {enlarger.network.scale} times, not {options.scale}")


def convert(
    source: Path,
    target: Path,
    networks: Sequence[Predictor],
    transform: Transform,
    options: VideoOptions,
    resume: bool,
    progress: Progress | None,
    stop: threading.Event | None,
    begin: Begin | None = None,
) -> VideoReport:
    """Reads, converts and writes all frames, in parallel.

    If an earlier run is continued, ``begin`` gets the last result of that, and its frame.
    """
    batch = BATCH if networks[0].device.type == "cuda" else 1
    with (
        errors_about(target),
        open_clip(source, options.fps) as clip,
        open_sink(clip, target, options, origin(clip, networks, options), resume=resume) as sink,
    ):
        report = VideoReport(target, sink.done, omitted=clip.omitted)
        before = sink.last() if sink.done and begin else None
        begun = partial(begin, before) if begin and before else None
        with closing(ahead(pictures(ahead(iter(clip)), transform, batch, sink.done, begun))) as items:
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


@contextmanager
def errors_about(target: Path) -> Iterator[None]:
    """Raises InvalidVideo, which names the result, for FFmpeg's errors other than OSErrors such as a full disk."""
    try:
        yield
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise InvalidVideo(f"{target}: FFmpeg cannot write it: {first_line(error)}") from error


def write_all(
    items: Iterator[Frame | Packet],
    sink: Sink,
    report: VideoReport,
    count: int | None,
    progress: Progress | None,
    stop: threading.Event | None,
) -> None:
    """Writes all frames and packets, or those up to the moment when ``stop`` is set."""
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
    items: Generator[Frame | Packet, None, None],
    transform: Transform,
    size: int,
    done: int,
    begin: Callable[[Picture], None] | None,
) -> Iterator[Frame | Packet]:
    """Frames with their pictures replaced by the networks' results, and packets unchanged.

    Args:
        items: From the clip.
        transform: Runs the networks.
        size: Frames in a batch.
        done: Number of frames at the beginning that an earlier run has converted; they are skipped.
        begin: Called with the last of these.
    """
    batch: list[Frame] = []
    with closing(items):
        for item in items:
            if isinstance(item, Packet):
                yield item
            elif done:
                done -= 1
                if begin and not done:
                    begin(item.picture)
            else:
                batch.append(item)
                if len(batch) == size:
                    yield from transformed(batch, transform)
                    batch = []
    yield from transformed(batch, transform)


def transformed(frames: list[Frame], transform: Transform) -> list[Frame]:
    """Frames with their pictures replaced by the networks' results."""
    results = transform([frame.picture for frame in frames]) if frames else []
    return [replace(frame, picture=picture) for frame, picture in zip(frames, results, strict=True)]


def stylized(predictor: Predictor, options: StyleOptions, frames: Sequence[Picture]) -> list[Picture]:
    """Stylized frames."""
    return predictor.stylize_pictures(frames, [options] * len(frames))


def upscaled(predictor: Predictor, options: UpscaleOptions, frames: Sequence[Picture]) -> list[Picture]:
    """Enlarged frames. Raises ImageTooLarge if the result would have too many pixels."""
    for picture in frames[:1]:
        height, width = picture.rgb.shape[1:]
        images.check_size(width, height, images.MAX_PIXELS, predictor.network.scale)
    return predictor.upscale_pictures(frames, [options] * len(frames))


def begin_after(steady: Steady, enlarger: Predictor | None, result: Picture, frame: Picture) -> None:
    """Starts steadying after a frame that an earlier run has converted, with its result as it was before enlarging."""
    if enlarger:
        rgb = F.avg_pool2d(result.rgb.float(), enlarger.network.scale).round().to(result.rgb.dtype)
        result = replace(result, rgb=rgb)
    steady.begin(frame, result)


def chained(first: Transform, second: Transform) -> Transform:
    """A function that applies ``first``, then ``second``."""
    return lambda frames: second(first(frames))


def shared(options: VideoOptions, kind: type) -> dict[str, Any]:
    """Those of the options that are fields of another dataclass, by name."""
    return {each.name: getattr(options, each.name) for each in settings_of(kind)}


def origin(clip: Clip, networks: Sequence[Predictor], options: VideoOptions) -> str:
    """A digest of what a result is made from: the clip's files, the networks and the options."""
    digest = hashlib.sha256()
    for file in clip.files:
        digest.update(f"{file.resolve()} {file.stat().st_size} {file.stat().st_mtime_ns}\n".encode())
    for each in networks:
        for name, parameter in each.network.state_dict().items():
            digest.update(name.encode() + parameter.cpu().contiguous().numpy().tobytes())
    digest.update(repr(options).encode())
    return digest.hexdigest()
