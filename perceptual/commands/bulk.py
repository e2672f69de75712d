"""``perceptual bulk``: converts folders and buckets of any size, on one machine or a Ray cluster."""

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..errors import InvalidOption, PerceptualError
from ..files import WHEN_FULL
from ..options import CollectionOptions, StyleOptions, UpscaleOptions, check_task
from ..settings import Integer, Number, parse
from .arguments import add_settings, converter, given, report
from .photos import STYLES, add_learned, add_machine, ignored
from .stylize import add_own_size
from .upscale import default_network

if TYPE_CHECKING:
    from ..bulk.job import Job
    from ..bulk.places import Place
    from ..bulk.planning import Plan
    from ..bulk.report import Report

DESCRIPTION = """Converts folders or buckets of photos of any size with Ray Data, on all cores or on a cluster.

  perceptual bulk photos/ stylized/ --style starry_night
  perceptual bulk photos/ stylized/ --style starry_night --scale 4
  perceptual bulk s3://bucket/photos s3://bucket/large --scale 4 --address auto
  perceptual bulk list.txt gs://bucket/out --model mine.safetensors --address ray://head:10001

An input is a folder, an image, or a .txt file that lists images, here or at an address such as s3://…, gs://… or
hdfs://…. Results have the same names and bytes as those of `perceptual stylize` and `perceptual upscale`. Beside them,
bulk.parquet has a row for each photo, and bulk.json the network and the options.

If the command is repeated, only missing results are computed: those that are newer than their photo, and were made of
it with the same network and options, are kept. A photo that cannot be converted is reported and skipped; the exit
status is then 1.
"""

PERIOD = 600.0  # seconds over which photos/s are averaged: rows arrive in blocks
INTERVAL = 60.0  # seconds between two lines of progress without a terminal
MOST_SHOWN = 20  # failures that are shown one by one; the report has all


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "bulk", help="convert folders or buckets of any size, also on a cluster", description=DESCRIPTION
    )
    parser.add_argument("inputs", nargs="+", metavar="IN", help="folders, images or lists of images; also addresses")
    parser.add_argument("output", metavar="OUT", help="the folder for the results; also an address")
    parser.add_argument(
        "--model",
        help=f"weights file or network's name; default: {STYLES}, for --scale alone super_resolution_xSCALE",
    )
    add_learned(parser)
    add_own_size(parser)
    add_machine(parser)
    add_cluster(parser)
    add_settings(parser, CollectionOptions)
    parser.set_defaults(run=run)


def add_cluster(parser: ArgumentParser) -> None:
    """Adds the arguments that choose the cluster and the number of actors."""
    group = parser.add_argument_group("Cluster")
    group.add_argument("--address", help="a Ray cluster: auto, HOST:PORT or ray://HOST:10001; default: this machine")
    group.add_argument(
        "--actors", type=converter(Integer(1)), metavar="N", help="processes that convert; default: as many as fit"
    )
    group.add_argument(
        "--cpus",
        type=converter(Integer(1)),
        default=1,
        metavar="N",
        help="processors, and threads, of each (default: %(default)s)",
    )
    group.add_argument(
        "--gpus",
        type=converter(Number(0)),
        metavar="SHARE",
        help="GPUs of each, such as 0.5; default: 1 if there are any",
    )


def run(args: Namespace) -> int:
    """Converts every photo; returns 1 if one failed."""
    from ..bulk.cluster import connected
    from ..bulk.origins import alone, known
    from ..bulk.places import Place
    from ..bulk.planning import divide, find_tasks
    from ..undo import signals_exit

    job, done = read_job(args)
    inputs, output = [Place.at(each) for each in args.inputs], Place.at(args.output)
    tasks, others = find_tasks(inputs, output, job.options.format)
    cpus = args.actors and args.actors * args.cpus
    with signals_exit(), alone(output):
        plan = divide(tasks, others, output, known(output, job.notes()))
        with connected(args.address, cpus):
            counts = convert(plan, job, output, args)
    total = f"{counts['made']} of {len(tasks)} photos {done}"
    kept = f", {counts['kept']} were done before" if counts["kept"] else ""
    print(f"{total}{kept}, in {output.address}{ignored(plan.others)}")
    return 1 if counts["failed"] else 0


def read_job(args: Namespace) -> tuple["Job", str]:
    """The network with its options, and a participle for the summary.

    Raises:
        PerceptualError: The network, or an option, would fail for every photo.
    """
    from ..bulk.job import Job, check, read_files
    from ..inference.metadata import find_weights, read_metadata

    values = given(args, CollectionOptions)
    scale = values.pop("scale", None)
    stylizes = args.learned or "style" in values or not scale
    model = args.model or (STYLES if stylizes else default_network(scale))
    metadata = read_metadata(find_weights(model))
    enlarges = metadata["task"] == "super-resolution"
    if scale and enlarges and scale != metadata["config"].get("scale"):
        raise InvalidOption(f"scale: {model} does not enlarge {scale} times")
    enlarger = find_weights(default_network(scale)) if scale and not enlarges else None
    check_task(values, UpscaleOptions if enlarges else StyleOptions, model)
    options = parse(UpscaleOptions, values) if enlarges else parse(StyleOptions, values)
    learned = [*map(find_weights, args.learned)]
    done = check(model, options, args.engine, learned, enlarger)
    weights = read_files(model, [*learned, *([enlarger] if enlarger else [])])
    names = tuple(file.name for file in learned)
    name = enlarger.name if enlarger else None
    return Job(weights, options, args.device, args.engine, args.cpus, args.own_size, names, name), done


def convert(plan: "Plan", job: "Job", output: "Place", args: Namespace) -> dict[str, int]:
    """Converts the missing photos, and writes the report. Returns the number of photos by outcome."""
    from ..bulk import cluster
    from ..bulk.converter import Converter
    from ..bulk.origins import note
    from ..bulk.report import lost, reporting

    on_gpus = cluster.has_gpus() if job.device is None else job.device.startswith("cuda")
    share = cluster.Share(args.cpus, float(on_gpus) if args.gpus is None else args.gpus)
    actors = min(cluster.count_actors(args.actors, share), max(1, len(plan.missing)))
    places = list({id(task.photo.place): task.photo.place for task in plan.missing}.values())
    arguments = {"job": job, "places": places, "output": output, "format": job.options.format or "jpeg"}
    reported: set[str] = set()
    output.remove(plan.unfinished)
    note(output, plan.origins, job.notes())  # not before: a job that does not begin leaves the results of others valid
    with reporting(output, plan.kept) as summary, progress(len(plan.missing)) as advance:
        try:
            for rows in cluster.rows(plan.missing, Converter, arguments, actors, share) if plan.missing else ():
                reported.update(rows["result"].to_pylist())
                show_failures(rows.to_pylist(), summary)
                summary.add(rows)
                advance(len(rows))
            lost(plan.missing, reported, summary)
        except (KeyboardInterrupt, SystemExit):
            done = f"{len(reported)} of {len(plan.missing)} photos were done"
            report(f"stopped: {done}; repeat the command to continue")
            raise
    return summary.counts


def show_failures(rows: Sequence[dict[str, Any]], summary: "Report") -> None:
    """Reports photos that failed, the first of them one by one.

    Raises:
        PerceptualError: The output is full.
    """
    for number, row in enumerate((row for row in rows if row["error"]), summary.counts["failed"]):
        if row["status"] == "stopped":
            raise PerceptualError(f"{row['error']}; {WHEN_FULL}")
        if number < MOST_SHOWN:
            report(f"{row['photo']}: {row['error']}")
        elif number == MOST_SHOWN:
            report("… and more, which bulk.parquet lists")


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """Shows the number of photos done, photos per second and the time left; yields the function that advances it.

    On a terminal, one line is updated; without a terminal, a line is printed every minute.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    speed = TextColumn("{task.fields[rate]:.1f} photos/s")
    columns = (BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal, speed_estimate_period=PERIOD
    ) as shown:
        bar = shown.add_task("", total=total, rate=0.0)
        (task,) = shown.tasks
        last_line = time.monotonic()

        def advance(count: int) -> None:
            nonlocal last_line
            shown.update(bar, advance=count, rate=task.speed or 0.0)
            if task.speed and not console.is_terminal and time.monotonic() - last_line > INTERVAL:
                last_line = time.monotonic()
                left = timedelta(seconds=task.time_remaining or 0)
                report(f"{task.completed:.0f} of {total} photos, {task.speed:.1f} photos/s, {left} left")

        yield advance
