"""Moving a model that is being served to other GPUs, without losing a request."""

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from ..client.addresses import RunningServer
from ..client.management import Registered
from .registration import forget, register, unregister
from .scaling import scale


def place(
    server: RunningServer,
    name: str,
    gpus: Sequence[int],
    workers: int | None,
    version: str | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> tuple[Registered, int]:
    """Spreads the workers of a model's version over the GPUs named, in turn.

    TorchServe reads a model's GPUs from its archive alone, and only as it registers it. So the archive is packaged
    with the GPUs as a version of its own, such as ``1.0-gpus-0-1``, which takes over once its workers are ready and
    warm: it becomes the default if the old one was, which answers what it was given and is then unregistered.

    Args:
        server: As from :func:`perceptual.find_server`.
        name: Of the model.
        gpus: Their numbers.
        workers: How many; None for as many as fit, as for :func:`perceptual.serving.scaling.scale`.
        version: By default the default one.
        progress: Is told in a few words what is going on.

    Returns:
        The version that serves now, and the number of its workers.

    Raises:
        InputError: The model's archive is another's.
        ServerError: No such model or GPU, there is no room for so many workers, or one fails to start; then nothing
            has changed.
    """
    with server.management() as management, ExitStack() as undo:
        described = management.describe(name, version)
        old = described["modelVersion"]
        if described.get("deviceIds") == [*gpus]:
            return Registered(name, old), scale(server, name, workers, old, progress)
        archive = Path(server.model_store) / described["modelUrl"]
        new = register(server, archive, version=version_on(gpus, old), gpus=gpus, progress=progress)
        undo.callback(forget, management, new)
        count = scale(server, name, workers, new.version, progress)
        if management.describe(name)["modelVersion"] == old:
            management.set_default(*new)
        undo.pop_all()
    progress(f"letting {name} {old} finish")
    unregister(server, name, old)
    return new, count


def version_on(gpus: Sequence[int], version: str) -> str:
    """The name of a version on some GPUs, whatever GPUs it was on before."""
    return "-".join([re.sub(r"-gpus(-\d+)+$", "", version), "gpus", *map(str, gpus)])
