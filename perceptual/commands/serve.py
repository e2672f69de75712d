"""``perceptual serve``: runs TorchServe with archives until it is stopped."""

import logging
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ServerError
from ..settings import Number
from .arguments import converter, report, working
from .package import add_model_store

DESCRIPTION = """Starts TorchServe on this machine with the archives of the model store, and keeps it running.

  perceptual serve                         ./model_store: the models of the last run, and new archives
  perceptual serve styles --port 9000
  perceptual serve --supervise             for production: restarts TorchServe and workers

Requests need a token: `perceptual token` prints one. The address of the page, which this command prints, works for one
browser; `perceptual token page` prints another. Ctrl-C stops the server.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("serve", help="start TorchServe and keep it running", description=DESCRIPTION)
    parser.add_argument("models", nargs="*", metavar="NAME", help="archives to load, and no others")
    add_model_store(parser)
    parser.add_argument(
        "--port",
        type=int,
        default=8080,
        help="port of the inference API; management and metrics take the next two; 0: free ports, and no state is kept "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--sockets",
        metavar="FOLDER",
        help="serve inference and management at UNIX sockets in this folder, guarded by file permissions, not at ports",
    )
    parser.add_argument(
        "--no-tokens",
        action="store_true",
        help="require no tokens for predictions, behind a proxy that checks clients; management always requires one",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings that override those of the shipped config.properties, such as job_queue_size=8",
    )
    parser.add_argument(
        "--supervise",
        action="store_true",
        help="start TorchServe again if it ends; answer 503 for a model whose workers fail or die, and try it again; "
        "serve the other archives if one is damaged or fails",
    )
    parser.add_argument(
        "--drain",
        type=converter(Number(0)),
        default=25,
        metavar="SECONDS",
        help="time for running requests when the server stops; systemd, docker or Kubernetes must allow 15 s more "
        "(default: %(default)s)",
    )
    parser.add_argument("--no-page", action="store_true", help="serve no page for browsers")
    parser.add_argument(
        "--page-status",
        action="store_true",
        help="the page also shows models, workers, queue and times, to everyone who may use it",
    )
    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Serves until Ctrl-C."""
    from ..serving.configuration import read_settings, without_effect
    from ..serving.notices import notify
    from ..serving.server import Server
    from ..serving.supervisor import Supervisor

    logging.basicConfig(format="%(asctime)s %(message)s")
    overrides = read_settings(args.config) if args.config else {}
    for message in without_effect(overrides):
        report(f"{args.config}: {message}")
    with working() as progress:
        server = Server(
            args.model_store,
            args.models or None,
            port=args.port,
            sockets=args.sockets,
            tokens=not args.no_tokens,
            overrides=overrides,
            page=not args.no_page,
            page_status=args.page_status,
            drain=args.drain,
            progress=progress,
            on_skip=logging.getLogger(__name__).error if args.supervise else None,
        )
        server.start()
    with server:
        for message in newer_archives(server):
            report(message)
        print(how_to_use(server), flush=True)
        notify("READY=1")
        try:
            Supervisor(server).run() if args.supervise else server.wait()
        except KeyboardInterrupt:
            print("stopping", file=sys.stderr)


def newer_archives(server: Any) -> Iterator[str]:
    """A message for each model of named archives of which the model store has a newer version than those served."""
    from ..archives.manifest import newest_versions, readable_archives
    from ..naming import version_key

    if not server.models:
        return
    served = newest_versions(server.archives)
    for name, newest in newest_versions(readable_archives(server.model_store)).items():
        if name in served and version_key(newest.version) > version_key(served[name].version):
            yield (
                f"{newest.file} has {newest.model}, which is newer; to serve it: perceptual serve {newest.path.stem}, "
                "or perceptual serve without names for what was served last"
            )


def how_to_use(server: Any) -> str:
    """Addresses and ready-to-paste commands."""
    address = server.address
    which = "" if server.ports.inference == 8080 else f" --port {server.ports.inference}"
    inference, management = map(for_curl, (address.inference_url, address.management_url))
    grpc = [server.properties[f"grpc_{api}_port"] for api in ("inference", "management")]
    token = ' -H "$TOKEN"' if server.tokens else ""
    lines = [
        *([f"page        {address.page()}"] if server.page and not server.sockets else []),
        f"inference   {address.inference_url}",
        f"management  {address.management_url}",
        f"metrics     {address.metrics_url}/metrics",
        f"logs        {address.logs}",
        f"gRPC        closed, at ports {' and '.join(grpc)}",
        "",
        *([f'TOKEN="Authorization: Bearer $(perceptual token{which})"'] if server.tokens else []),
        *(
            f"curl --fail-with-body{token}{header} -T photo.jpg {inference}/predictions/{name} -o {name}.jpg"
            for name, header in headers(server).items()
        ),
        f'curl -H "Authorization: Bearer $(perceptual token management{which})" {management}/models',
        "",
        "Ctrl-C stops the server.",
    ]
    return "\n".join(lines)


def headers(server: Any) -> dict[str, str]:
    """For each model, the header that its requests need: the first style where there are several, or a factor."""
    with server.management() as management:
        return {each.name: header_of(management, each) for each in server.archives}


def header_of(management: Any, archive: Any) -> str:
    """The header that requests to an archive's model need."""
    try:
        offered = management.capabilities(archive.name)
    except ServerError:  # the model is paused, or fails
        return ' -H "X-Style: STYLE"' if archive.is_collection else ""
    styles = [each["name"] for each in offered["styles"]]
    if archive.is_collection and not styles:
        return f' -H "X-Scale: {offered["scales"][0]}"'
    return f' -H "X-Style: {styles[0]}"' if archive.is_collection or len(styles) > 1 else ""


def for_curl(url: str) -> str:
    """A server's address as arguments of curl."""
    return f"--unix-socket {url.removeprefix('unix:')} http://localhost" if url.startswith("unix:") else url
