"""``perceptual video``: converts videos, without a server."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, InvalidOption, OutOfMemory
from ..settings import parse
from ..signals import stop_signals
from ..video.options import VideoOptions
from .arguments import add_settings, given, report
from .photos import STYLES, add_learned, add_machine, check_writable, refuse_full
from .upscale import default_network

if TYPE_CHECKING:
    from ..inference.predictor import Predictor
    from ..video.conversion import VideoReport

DESCRIPTION = """Stylizes or enlarges videos, and keeps sound, subtitles, chapters, metadata and times.

  perceptual video clip.mp4 --style starry_night -o stylized.mp4
  perceptual video clip.mov --style udnie -o clip.gif --max-size 480
  perceptual video clip.mp4 --scale 4 -o large.mp4
  perceptual video *.mp4 --model mine -o stylized/

In: all videos that FFmpeg reads, animated GIF, PNG and WebP, or a folder of images. Out, by the result's ending: .mp4,
.m4v, .mov, .mkv, .webm, .gif, .png, .apng, .webp; of one clip without an ending, a folder of images. Several clips go
to a folder under their own names.

Ctrl-C closes the partial result, which can be played; --resume continues from there, except in animations, and leaves
clips that are complete as they are.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("video", help="stylize or enlarge videos", description=DESCRIPTION)
    parser.add_argument("clips", nargs="+", type=Path, metavar="IN", help="videos, animations, or folders of images")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="a file, or a folder")
    parser.add_argument(
        "--model",
        help=f"weights file or network's name; default: {STYLES}, for --scale alone super_resolution_xSCALE",
    )
    add_learned(parser)
    parser.add_argument("--resume", action="store_true", help="continue where an earlier run was stopped")
    add_machine(parser)
    add_settings(parser, VideoOptions)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Converts every clip; returns 1 if one failed or is incomplete, 130 if the run was stopped."""
    values = given(args, VideoOptions)
    options = parse(VideoOptions, values)
    jobs = plan(args.clips, args.output)

    import perceptual.video.conversion as conversion

    stylizer, enlarger = load_networks(args.model, options, args)
    model = str(args.model or (STYLES if stylizer else default_network(options.scale)))
    conversion.check_used(values, model, stylizes=bool(stylizer), enlarges=bool(enlarger))
    conversion.check_scale(options, enlarger, model)
    failed = False
    with stop_signals() as stop:
        for source, target in jobs:
            if args.resume and is_complete(target):
                print(f"{target}: complete already; without --resume, it is made again")
                continue
            try:
                with progress_bar(source) as progress:
                    common = {"resume": args.resume, "progress": progress, "stop": stop, **python_names(values)}
                    if stylizer:
                        outcome = conversion.stylize_video(stylizer, source, target, enlarger=enlarger, **common)
                    else:
                        assert enlarger
                        outcome = conversion.upscale_video(enlarger, source, target, **common)
            except (InputError, OutOfMemory, OSError) as error:
                refuse_full(error, target)
                failed = True
                report(str(error) if str(source) in str(error) else f"{source}: {error}")
                continue
            failed = failed or bool(outcome.faults)
            print_outcome(outcome)
            if outcome.stopped:
                return 130
    return 1 if failed else 0


def load_networks(
    model: str | None, options: VideoOptions, args: Namespace
) -> "tuple[Predictor | None, Predictor | None]":
    """The style network and the super-resolution network; None for one that is not needed."""
    from ..inference.predictor import load

    scale = options.scale
    if not model and (options.style or args.learned or not scale):
        model = STYLES
    first = load(model, args.device, args.engine, styles=args.learned) if model else None
    if first and first.network.task == "super-resolution":
        return None, first
    return first, load(default_network(scale), args.device, args.engine) if scale else None


def plan(clips: list[Path], output: Path) -> list[tuple[Path, Path]]:
    """Pairs every clip with its result.

    Raises:
        InvalidOption: The output of several clips is a file, or two clips have the same name.
    """
    if len(clips) == 1:
        check_writable([output.parent])
        return [(clips[0], output)]
    if output.suffix:
        raise InvalidOption(f"{output}: several clips need a folder as --output")
    jobs = [(clip, output / named(clip)) for clip in clips]
    if len({target for _, target in jobs}) < len(jobs):
        raise InvalidOption("two of the clips have the same name; convert them one by one")
    check_writable([output])
    return jobs


def named(clip: Path) -> str:
    """The name of a clip's result: the clip's own if its format can be written, else with the ending .mp4."""
    from ..video.sinks import ENDINGS

    return clip.name if clip.suffix.lower() in ENDINGS else f"{clip.name if clip.is_dir() else clip.stem}.mp4"


def is_complete(target: Path) -> bool:
    """Whether an earlier run has finished a result."""
    from ..video.sinks import part_of

    there = any(target.iterdir()) if target.is_dir() else target.exists()
    return there and not part_of(target).exists()


def print_outcome(outcome: "VideoReport") -> None:
    """Prints the outcome of a clip: faults to standard error, and a line to standard output."""
    from ..video.sinks import KINDS

    for fault in outcome.faults:
        report(fault)
    without = f"; without {', '.join(outcome.omitted)}" if outcome.omitted else ""
    if outcome.stopped:
        hint = "" if outcome.path.suffix.lower() in KINDS else "; --resume continues"
        print(f"stopped after {outcome.frames} frames, in {outcome.path}{hint}{without}")
    else:
        print(f"{outcome.frames} frames, in {outcome.path}{without}")


def python_names(values: dict[str, Any]) -> dict[str, Any]:
    """Options by the names of their Python arguments."""
    return {name.replace("-", "_"): value for name, value in values.items()}


@contextmanager
def progress_bar(clip: Path) -> Iterator[Any]:
    """Shows, on a terminal, a bar with frames per second and the time left; yields the function that advances it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(escape(clip.name), total=None, speed="")

        def advance(done: int, total: int | None) -> None:
            rate = bar.tasks[0].speed
            bar.update(task, completed=done, total=total, speed=f"{rate:.2f} frames/s" if rate else "")

        yield advance
