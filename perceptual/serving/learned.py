"""Adds a learned style to a served model, without losing a request."""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..archives.build import check_addable, holds_style, networks_of_trunk, trunk_of
from ..archives.manifest import read_archive
from ..client.addresses import RunningServer
from ..client.management import ManagementClient
from ..client.model import Model
from ..errors import ArchiveError, InputError
from ..naming import ModelVersion
from .registration import Source, add, changing, take_over, unregister
from .snapshots import files_of_next_starts


def add_style(
    server: RunningServer,
    style: Path,
    version: str | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> ModelVersion:
    """Adds a style to the served model that has its trunk, as a new version, which replaces the old when it is warm.

    Nothing changes if the model has this very style already, and no version is given. A version that is left of such a
    call that was killed is removed first.

    Args:
        server: As from :func:`perceptual.find_server`.
        style: The style file; requests name the style by the file's name.
        version: Of the model; by default the one after the served version.
        progress: Called with a short description of each step.

    Returns:
        The model's name and new version.

    Raises:
        WeightsError: The file is damaged.
        InputError: No served model, or more than one, has its trunk; or the model has a style of this name.
        ServerError: The new version cannot be loaded; then nothing has changed.
    """
    with changing(server, progress) as (management, undo):
        old = holder(server, management, trunk_of(style), style.stem)
        archive = Path(server.model_store) / old.archive
        for each in management.versions(old.name):
            if is_left(archive.parent, old, each, style):
                progress(f"removing {each.id}, which is left of a killed registration")
                unregister(server, *each.id)
                discard(server, each)
        if version is None and holds_style(archive, style):
            return old.id
        check_addable(archive, style.stem)
        taken = {each.version for each in management.versions(old.name)}
        source = Source(archive, version or version_after(old.version, taken), style=style, like=old)
        new = add(undo, server, management, source, old.wanted, progress)
        take_over(undo, server, management, old, new, progress)
        discard(server, old)
    return new


def is_left(model_store: Path, served: Model, other: Model, style: Path) -> bool:
    """Whether a killed :func:`add_style` of a style has left a version: the new one, or the one that it replaced."""
    pairs = (served, other), (other, served)
    return any(adds(model_store / new.archive, old.version, style) for old, new in pairs)


def adds(archive: Path, version: str, style: Path) -> bool:
    """Whether an archive is that of a version with a style added."""
    return holds_style(archive, style) and read_archive(archive).follows == version


def discard(server: RunningServer, model: Model) -> None:
    """Removes the archive of a replaced version if :func:`add_style` built it, and no server is to start with it."""
    archive = Path(server.model_store) / model.archive
    with suppress(ArchiveError, InputError, OSError):  # the style is served
        if read_archive(archive).follows and archive.name not in files_of_next_starts(archive.parent):
            archive.unlink()


def check_place(server: RunningServer, trunk: str, style: Path) -> None:
    """Raises the InputErrors of :func:`add_style` for a file that may be yet to be learned; ``trunk`` is a digest."""
    with server.management() as management:
        archive = Path(server.model_store) / holder(server, management, trunk, style.stem).archive
    if not (style.exists() and holds_style(archive, style)):
        check_addable(archive, style.stem)


def holder(server: RunningServer, management: ManagementClient, trunk: str, name: str) -> Model:
    """The served model that has the trunk of a style of this name, in its default version.

    Raises:
        InputError: No served model, or more than one, has it.
    """
    model_store = Path(server.model_store)
    models = [management.describe(name) for name in management.models()]
    holders = [each for each in models if networks_of_trunk(model_store / each.archive, trunk)]
    if len(holders) != 1:
        names = ", ".join(each.name for each in holders)
        raise InputError(
            f"{names} all have the trunk of {name}: serve the trunk in one model only; to remove another: "
            "perceptual models unregister NAME"
            if holders
            else f"no served model has the trunk of {name}: register the trunk first"
        )
    return holders[0]


def version_after(version: str, taken: set[str]) -> str:
    """The next version that is free: 1.1 after 1.0."""
    while version in taken:
        number = re.search(r"\d+$", version)
        version = f"{version[: number.start()]}{int(number[0]) + 1}" if number else f"{version}.1"
    return version
