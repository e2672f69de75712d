"""A learned style added to a model that is being served, without losing a request."""

import re
from collections.abc import Callable
from pathlib import Path

from ..archives.build import check_addable, networks_for
from ..client.addresses import RunningServer
from ..client.management import ManagementClient
from ..client.model import Model
from ..errors import InputError
from ..naming import ModelVersion
from ..undo import all_or_nothing
from .registration import Source, add, take_over


def add_style(
    server: RunningServer,
    style: Path,
    version: str | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> ModelVersion:
    """Adds a style to the served model that holds its trunk, as a new version, which takes over once it is warm.

    Args:
        server: As from :func:`perceptual.find_server`.
        style: The style file; requests name the style by the file's name.
        version: Of the model; by default the one after that which is served.
        progress: Called with a few words on what is going on.

    Returns:
        The model's name and new version.

    Raises:
        WeightsError: The file is damaged.
        InputError: No served model, or more than one, holds its trunk, or that has a style of this name.
        ServerError: The new version cannot be loaded; then nothing has changed.
    """
    with server.management() as management, all_or_nothing() as undo:
        old = holder(management, Path(server.model_store), style)
        archive = Path(server.model_store) / old.archive
        check_addable(archive, style)
        taken = {each.version for each in management.versions(old.name)}
        source = Source(archive, version or version_after(old.version, taken), style=style)
        new = add(undo, server, management, source, old.wanted or None, progress)
        take_over(undo, server, management, old, new, progress)
    return new


def holder(management: ManagementClient, model_store: Path, style: Path) -> Model:
    """The default version of the one model whose archive holds the trunk of a style. Raises InputError."""
    models = [management.describe(name) for name in management.models()]
    holders = [each for each in models if networks_for(model_store / each.archive, style)]
    if len(holders) != 1:
        names = ", ".join(each.name for each in holders)
        raise InputError(
            f"{names} each hold the trunk of {style}: serve it in one model"
            if holders
            else f"no model that is served holds the trunk of {style}: register that first"
        )
    return holders[0]


def version_after(version: str, taken: set[str]) -> str:
    """The next version that is free: 1.1 after 1.0."""
    while version in taken:
        number = re.search(r"\d+$", version)
        version = f"{version[: number.start()]}{int(number[0]) + 1}" if number else f"{version}.1"
    return version
