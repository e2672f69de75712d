"""Adds a learned style to a served model, without losing a request."""

import json
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
from ..files import write_atomically
from ..naming import ModelVersion
from .registration import Source, add, changing, check_is_new, take_over, unregister
from .snapshots import files_of_next_starts

NOTE = "replacing.json"  # in the folder of the snapshots: name, old and new version of a call that has not ended


def add_style(
    server: RunningServer,
    style: Path,
    version: str | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> ModelVersion:
    """Adds a style to the served model that has its trunk, as a new version, which replaces the old when it is warm.

    The old version is unregistered; its archive is removed if this function built it and no server may start with it.
    Nothing changes if the model has this very style already, and no version is given. What a call that was killed has
    left is removed first.

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
        AlreadyRegistered: The server has that version.
        ServerError: The new version cannot be loaded; then nothing has changed.
    """
    note = Path(server.snapshots) / NOTE
    with changing(server, progress) as (management, undo):
        remove_left(server, management, note, progress)
        old = holder(server, management, trunk_of(style), style.stem)
        archive = Path(server.model_store) / old.archive
        if version is None and holds_style(archive, style):
            return old.id
        check_addable(archive, style.stem)
        taken = {each.version for each in management.versions(old.name)}
        new = ModelVersion(old.name, version or version_after(old.version, taken))
        check_is_new(management, new)  # so that the note names no version of somebody else
        undo.callback(note.unlink, missing_ok=True)
        write_atomically(note, json.dumps([old.name, old.version, new.version]).encode(), mode=0o600)
        add(undo, server, management, Source(archive, new.version, style=style, like=old), old.wanted, progress)
        take_over(undo, server, management, old, new, progress)
        note.unlink()
        discard(server, old)
    return new


def remove_left(
    server: RunningServer, management: ManagementClient, note: Path, progress: Callable[[str], None]
) -> None:
    """Removes the version that a killed :func:`add_style` has left: the new one, or the one that it replaced."""
    if not note.exists():
        return
    name, old, new = json.loads(note.read_text())
    versions = management.versions(name) if name in management.models() else []
    for each in versions:
        if each.version == (old if versions[0].version == new else new):  # the first is the default
            progress(f"removing {each.id}, which is left of a killed registration")
            unregister(server, *each.id)
            discard(server, each)
    note.unlink()


def discard(server: RunningServer, model: Model) -> None:
    """Removes the archive of a replaced version if :func:`add_style` built it, and no server may start with it."""
    archive = Path(server.model_store) / model.archive
    with suppress(ArchiveError, InputError, OSError):  # the style is served
        if read_archive(archive).follows and archive.name not in files_of_next_starts(server):
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
