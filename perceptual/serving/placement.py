"""Moves a served model to other GPUs, without losing a request."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ..client.addresses import RunningServer
from ..naming import ModelVersion
from .registration import Source, add, changing, take_over
from .scaling import scale


def place(
    server: RunningServer,
    name: str,
    gpus: Sequence[int],
    workers: int | None,
    version: str | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> tuple[ModelVersion, int]:
    """Distributes the workers of a model's version over named GPUs, in turn.

    TorchServe reads a model's GPUs only from its archive, and only at registration. So the archive is packaged again
    with the GPUs, as a new version such as ``1.0-gpus-0-1``. Once its workers are warm, it becomes the
    default if the old version was. The old version answers its requests and is then unregistered.

    Args:
        server: As from :func:`perceptual.find_server`.
        name: Of the model.
        gpus: Numbers of the GPUs.
        workers: Number of workers; None for as many as fit, as for :func:`perceptual.serving.scaling.scale`.
        version: By default the model's default version.
        progress: Called with a short description of each step.

    Returns:
        The version that serves now, and the number of its workers.

    Raises:
        InputError: The model's archive is of other software.
        ServerError: No such model or GPU, that many workers do not fit, or one fails to start; then nothing has
            changed.
    """
    with changing(server, progress) as (management, undo):
        old = management.describe(name, version)
        if old.gpus == tuple(gpus):
            return old.id, scale(server, name, workers, old.version, progress)
        source = Source(Path(server.model_store) / old.archive, version_on(gpus, old.version), gpus, like=old)
        new = add(undo, server, management, source, None, progress)
        count = scale(server, name, workers, new.version, progress)
        take_over(undo, server, management, old, new, progress)
    return new, count


def version_on(gpus: Sequence[int], version: str) -> str:
    """The name of a version on these GPUs; the part for its former GPUs is replaced."""
    return "-".join([re.sub(r"-gpus(-\d+)+$", "", version), "gpus", *map(str, gpus)])
