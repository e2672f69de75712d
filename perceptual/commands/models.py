"""``perceptual models``: the models of a running server, and their workers."""

from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..settings import Integer
from .arguments import converter, working
from .output import add_json, as_json, console, table
from .servers import add_server, server_of

DESCRIPTION = """Registers, scales and removes models while the server runs.

  perceptual models list
  perceptual models register mine.safetensors --version 2.0    package, load, warm up
  perceptual models set-default mine 2.0                       serve it at /predictions/mine
  perceptual models scale mine --workers 2                     or auto: as many as fit
  perceptual models unregister mine --version 1.0

The server is the one that `perceptual serve` started last, or the one on --port, or at --url.
"""


@dataclass(frozen=True)
class WorkerCount(Integer):
    """A number of workers, or None for ``auto``."""

    low: float = 0

    def parse(self, value: Any) -> Any:
        """An int or None, from text."""
        return None if value == "auto" else super().parse(value)

    def __str__(self) -> str:
        return f"{super().__str__()}, or auto"


def add_to(subparsers: Any) -> None:
    """Adds the command and its actions to the command line."""
    parser = subparsers.add_parser("models", help="list, register and scale a server's models", description=DESCRIPTION)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    add_json(add_action(actions, "list", "list models, versions and workers", show_list))
    show = add_action(actions, "show", "print TorchServe's description of a model as JSON", show_model)
    show.add_argument("name", metavar="NAME", help="of the model")

    register = add_action(actions, "register", "load weights or an archive", register_model)
    register.add_argument(
        "file",
        metavar="MODEL",
        help="weights, an archive, or the name of an archive in the model store or of a network",
    )
    register.add_argument("--version", help="default: the archive's, or the one in the weights' provenance, else 1.0")
    register.add_argument("--workers", type=converter(Integer(1)), metavar="N", help="default: the archive's")
    register.add_argument(
        "--gpus", type=gpu_list, metavar="0,1", help="GPUs that the workers use in turn; default: all"
    )

    scale = add_action(actions, "scale", "set the number of a model's workers", scale_model)
    scale.add_argument("name", metavar="NAME", help="of the model")
    scale.add_argument(
        "--workers",
        type=converter(WorkerCount()),
        metavar="N",
        required=True,
        help="number of workers; 0 pauses the model, auto starts as many as memory and cores allow",
    )
    scale.add_argument("--version", help="default: the default version")
    scale.add_argument(
        "--gpus", type=gpu_list, metavar="0,1", help="GPUs that the workers use in turn; default: as before"
    )

    default = add_action(actions, "set-default", "choose the version for requests that name none", set_default)
    default.add_argument("name", metavar="NAME", help="of the model")
    default.add_argument("version", metavar="VERSION", help="one that is registered")

    unregister = add_action(actions, "unregister", "remove a model and end its workers", unregister_model)
    unregister.add_argument("name", metavar="NAME", help="of the model")
    unregister.add_argument("--version", help="default: all versions")


def add_action(actions: Any, name: str, help: str, run: Callable[[Namespace], None]) -> Any:
    """Adds one action, with the options that name the server."""
    parser = actions.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    add_server(parser)
    parser.set_defaults(run=run)
    return parser


def show_list(args: Namespace) -> None:
    """Prints a row for every version of every model."""
    with server_of(args).management() as client:
        models = [client.versions(name) for name in client.models()]
    if args.json:
        print(as_json([listed(each, is_default=each is versions[0]) for versions in models for each in versions]))
        return
    rows = [list_row(each, is_default=each is versions[0]) for versions in models for each in versions]
    columns = ["model", "version", "default", "workers ready", "waiting", "batch", "archive"]
    console().print(table(columns, rows))


def listed(model: Any, *, is_default: bool) -> dict[str, Any]:
    """A version as JSON, with more fields than the table."""
    fields = {name: value for name, value in vars(model).items() if name != "description"}
    return {**fields, "default": is_default, "ready": len(model.ready)}


def list_row(model: Any, *, is_default: bool) -> list[str]:
    """The table's row for a version."""
    return [
        model.name,
        model.version,
        "yes" if is_default else "",
        f"{len(model.ready)} of {model.wanted}",
        str(model.waiting),
        str(model.batch_size),
        model.archive,
    ]


def show_model(args: Namespace) -> None:
    """Prints every version's description."""
    with server_of(args).management() as client:
        print(as_json([model.description for model in client.versions(args.name)]))


def register_model(args: Namespace) -> None:
    """Registers a file; with a server on another machine, only an archive of its model store."""
    from ..serving.managed import managed

    with working() as progress:
        model = managed(server_of(args)).register(args.file, args.version, args.workers, args.gpus, progress)
    print(f"{model} is ready at /predictions/{model.path}")


def scale_model(args: Namespace) -> None:
    """Scales and prints the result; on this machine, within what memory allows."""
    from ..serving.managed import managed

    with working() as progress:
        model, count = managed(server_of(args)).scale(args.name, args.workers, args.version, args.gpus, progress)
    print(f"{model} has {count} worker{'' if count == 1 else 's'}")


def set_default(args: Namespace) -> None:
    """Changes the default version."""
    with server_of(args).management() as client:
        client.set_default(args.name, args.version)
    print(f"/predictions/{args.name} is now {args.version}")


def unregister_model(args: Namespace) -> None:
    """Removes a model or a version; on this machine, after it has answered its requests."""
    from ..serving.managed import managed

    managed(server_of(args)).unregister(args.name, args.version)
    print(f"{args.name} {args.version or ''}".rstrip() + " is unregistered; its archive stays in the model store")


def gpu_list(text: str) -> list[int]:
    """For argparse: numbers of GPUs, separated by commas."""
    if not all(part.isdecimal() for part in text.split(",")):
        raise ArgumentTypeError(f"expected numbers of GPUs such as 0,1, got {text!r}")
    return [int(part) for part in text.split(",")]
