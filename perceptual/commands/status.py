"""``perceptual status``: workers, queue, requests and latencies of a running server."""

import time
from argparse import Namespace
from contextlib import nullcontext
from typing import Any

from ..errors import ServerError
from .servers import add_server, server_of

DESCRIPTION = """Shows what the server that `perceptual serve` started is doing, with totals since it started.

  perceptual status
  perceptual status --watch                                again every two seconds, until Ctrl-C
  perceptual status --url http://10.0.0.7:8081 --key-file key_file.json

With --url, /ping is requested at the port below and metrics at the port above, which are TorchServe's defaults. The
exit status is 1 if a model has no ready worker; /ping says Healthy even then.
"""
INTERVAL = 2.0  # seconds


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("status", help="show what the running server is doing", description=DESCRIPTION)
    add_server(parser)
    parser.add_argument("--watch", action="store_true", help="repeat every two seconds, until Ctrl-C")
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Tells once, or until Ctrl-C; returns 1 if a model does not answer."""
    from rich.live import Live
    from rich.markup import escape

    from ..serving.status import read_status
    from .models import console

    server = server_of(args)
    if not args.watch:
        status = read_status(server)
        console().print(report_of(status))
        return 1 if status.unhealthy else 0
    printer = console()
    with Live(console=printer) if printer.is_terminal else nullcontext() as live:
        show = live.update if live else printer.print  # in a pipe, one report after the other
        while True:
            try:
                show(report_of(read_status(server)))
            except ServerError as error:  # it may come back
                show(f"[red]{escape(str(error))}[/red]")
            time.sleep(INTERVAL)


def report_of(status: Any) -> Any:
    """The state in a word and two tables."""
    from rich.console import Group

    from .models import table

    models = ["model", "version", "workers ready", "waiting", "answered", "refused or failed", "p50 / p95 by stage"]
    workers = ["worker", "model", "version", "state", "device", "memory"]
    return Group(
        verdict(status),
        table(models, [model_row(model) for model in status.models]),
        table(workers, [worker_row(model, each) for model in status.models for each in model.workers]),
    )


def verdict(status: Any) -> str:
    """Whether every model answers, and what ``/ping`` says to that."""
    from rich.markup import escape

    ping = escape(status.ping)
    if status.unhealthy:
        return f"[red]unhealthy[/red]: no worker is ready for {escape(', '.join(status.unhealthy))} (/ping: {ping})"
    return f"[green]healthy[/green] (/ping: {ping})"


def model_row(model: Any) -> list[str]:
    """A version's row of the first table."""
    failed = [f"{count} {outcome}" for outcome, count in sorted(model.replies.items()) if outcome != "ok"]
    stages = [f"{name} {p50 * 1000:.0f} / {p95 * 1000:.0f} ms" for name, (p50, p95) in model.stages.items()]
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


def worker_row(model: Any, worker: Any) -> list[str]:
    """A worker's row of the second table."""
    memory = "?" if worker.memory is None else f"{worker.memory / 2**20:.0f} MiB"
    state = "ready" if worker.ready else "loading or down"
    pid = str(worker.pid) if worker.pid > 0 else "none"
    return [pid, model.name, model.version, state, worker.device, memory]
