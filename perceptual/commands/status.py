"""``perceptual status``: workers, queue, requests and latencies of a running server."""

import sys
import time
from argparse import Namespace
from contextlib import nullcontext
from typing import Any

from ..errors import ServerError
from .output import add_json, as_json, console, table
from .servers import add_server, server_of

DESCRIPTION = """Shows what the server that `perceptual serve` started is doing, with totals since it started.

  perceptual status
  perceptual status --watch                                again every two seconds, until Ctrl-C
  perceptual status --json                                 as JSON, times in seconds, null for more than 10 s
  perceptual status --url http://10.0.0.7:8081 --key-file key_file.json

With --url, /ping is requested at the port below and metrics at the port above, which are TorchServe's defaults. The
exit status is 1 if a model has no ready worker; /ping reports Healthy even then. A model that was paused, by
`perceptual models scale NAME --workers 0`, needs none.
"""
INTERVAL = 2.0  # seconds


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("status", help="show what the running server is doing", description=DESCRIPTION)
    add_json(parser)
    add_server(parser)
    parser.add_argument("--watch", action="store_true", help="repeat every two seconds, until Ctrl-C")
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Shows the status once, or until Ctrl-C; returns 1 if a model does not answer."""
    from rich.live import Live
    from rich.markup import escape

    from ..serving.status import read_status

    server = server_of(args)
    if not args.watch:
        status = read_status(server)
        print(as_json(status)) if args.json else console().print(report_of(status))
        return 1 if status.unhealthy else 0
    printer = console()
    with Live(console=printer) if printer.is_terminal and not args.json else nullcontext() as live:
        while True:
            try:
                status = read_status(server)
                if args.json:
                    print(as_json(status), flush=True)
                else:
                    live.update(fitting(status, printer)) if live else printer.print(report_of(status))
            except ServerError as error:  # it may be restarting
                if args.json:
                    print(error, file=sys.stderr)
                else:
                    (live.update if live else printer.print)(f"[red]{escape(str(error))}[/red]")
            time.sleep(INTERVAL)


def fitting(status: Any, printer: Any) -> Any:
    """The report if it fits in the window; else as many brief rows as do, and the number of the others."""
    rows = len(status.models) + sum(len(model.workers) for model in status.models)
    for shown, brief in ((rows, False), *((number, True) for number in range(rows, -1, -1))):
        left = f"… and {rows - shown} more rows, for a taller window" if shown < rows else ""
        report = report_of(status, shown, left, brief=brief)
        if len(printer.render_lines(report)) < printer.height:
            break
    return report


def report_of(status: Any, rows: int | None = None, left: str = "", *, brief: bool = False) -> Any:
    """The verdict and two tables, with problems first.

    Args:
        status: The status to report.
        rows: Number of rows of both tables together; by default all.
        left: Text for the end.
        brief: Whether a model has one line: its failures as one number, and the slowest stage alone.
    """
    from rich.console import Group

    columns = ["model", "version", "workers ready", "waiting", "answered", "refused or failed", "p50 / p95 by stage"]
    if brief:
        columns[-2:] = ["failed", "p50 / p95 of the slowest"]
    parts = ["worker", "model", "version", "state", "device", "memory"]
    models = sorted(status.models, key=lambda each: (each.healthy, -each.waiting, -failures(each)))
    workers = [(model, each) for model in models for each in sorted(model.workers, key=lambda each: each.ready)]
    rows = len(models) + len(workers) if rows is None else rows
    return Group(
        verdict(status),
        table(columns, (model_row(each, brief) for each in models[:rows])),
        table(parts, (worker_row(*each) for each in workers[: max(0, rows - len(models))])),
        *([left] if left else []),
    )


def failures(model: Any) -> int:
    """Number of requests that were not answered with a picture."""
    return sum(count for outcome, count in model.replies.items() if outcome != "ok")


def verdict(status: Any) -> str:
    """Whether every model is healthy, and the reply to ``/ping``."""
    from rich.markup import escape

    ping = escape(status.ping)
    if status.unhealthy:
        return f"[red]unhealthy[/red]: no worker is ready for {escape(', '.join(status.unhealthy))} (/ping: {ping})"
    return f"[green]healthy[/green] (/ping: {ping})"


def model_row(model: Any, brief: bool) -> list[str]:
    """A version's row of the first table."""
    failed = [f"{count} {outcome}" for outcome, count in sorted(model.replies.items()) if outcome != "ok"]
    shown = model.stages
    if brief:
        failed = [str(failures(model))]
        shown = dict(sorted(shown.items(), key=lambda stage: stage[1][-1])[-1:])
    stages = [f"{name} {' / '.join(map(duration, quantiles))}" for name, quantiles in shown.items()]
    ready = sum(worker.ready for worker in model.workers)
    answered = str(model.replies.get("ok", 0))
    waiting = str(model.waiting)
    return [
        model.name,
        model.version,
        f"{ready} of {model.wanted}",
        waiting,
        answered,
        "\n".join(failed),
        "\n".join(stages),
    ]


def duration(seconds: float) -> str:
    """A time as ``12 ms``, or as ``> 10 s`` if it is beyond the last bucket of the histogram."""
    from ..serving.status import BEYOND

    return f"> {BEYOND:.0f} s" if seconds == float("inf") else f"{seconds * 1000:.0f} ms"


def worker_row(model: Any, worker: Any) -> list[str]:
    """A worker's row of the second table."""
    memory = "?" if worker.memory is None else f"{worker.memory / 2**20:.0f} MiB"
    state = "ready" if worker.ready else "loading or down"
    pid = str(worker.pid) if worker.pid > 0 else "none"
    return [pid, model.name, model.version, state, worker.device, memory]
