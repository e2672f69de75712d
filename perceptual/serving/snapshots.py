"""Restores the models that were registered when a server ended or was killed, from TorchServe's own snapshots.

TorchServe writes a snapshot at its start and end, and after every registration, scaling, change of the default version
and removal, before it replies. It restores a snapshot only if it is started without a configuration, uses the ports of
that time, and does not start if an archive is missing. So this module reads the newest snapshot, and passes it to
TorchServe as part of the new configuration.
"""

import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import javaproperties

from ..archives.manifest import Archive, find_archives
from ..client.addresses import RunningServer, announced_servers
from ..files import write_atomically

PROPERTY = "model_snapshot"
LEFT_OUT = "left_out.json"  # archives that are in the model store, but were not loaded at the last start
HELD = "held.json"  # models that the supervisor holds back, and the number of workers each should have
UNREADABLE = ".unreadable"  # suffix for a file with one of these names that cannot be read

logger = logging.getLogger(__name__)


class Start(NamedTuple):
    """The archives that a server starts with.

    Attributes:
        loaded: Loaded when TorchServe starts, from ``snapshot`` if there is one.
        paused: Those of ``loaded`` that were scaled to zero workers.
        added: Registered after the start, by the management API.
        snapshot: JSON for TorchServe's configuration.
    """

    loaded: list[Archive]
    paused: list[Archive]
    added: list[Archive]
    snapshot: str | None

    @property
    def workers(self) -> int:
        """The number of workers of all of them."""
        if self.snapshot is None:
            return len(self.loaded) + len(self.added)
        models: dict[str, dict[str, dict[str, int]]] = json.loads(self.snapshot)["models"]
        restored = sum(version["minWorkers"] for versions in models.values() for version in versions.values())
        return restored + len(self.added)


def snapshot_folder(model_store: Path, port: int) -> Path | None:
    """The folder of a server's snapshots; None if it has no fixed port, or the model store is read-only."""
    return model_store / ".snapshots" / str(port) if port and os.access(model_store, os.W_OK) else None


def files_of_next_starts(server: RunningServer) -> set[str]:
    """The archives with which servers of a server's model store may start: at any port, again, or after a failure.

    Those that are named are needed even if they are served no more: the same command names them at the next start.
    """
    servers = [server, *(each for each in announced_servers() if each.model_store == server.model_store)]
    folders = {*Path(server.model_store).glob(".snapshots/*"), *(Path(each.snapshots) for each in servers)}
    named = {file for each in servers for file in each.named}
    return named.union(*(entries_of(newest_snapshot(each) or {}) for each in folders))


def plan_start(folder: Path | None, archives: Sequence[Archive]) -> Start:
    """Chooses the archives for a start: those registered last, and those that are new in the model store.

    An unregistered archive stays unregistered. A registered one that is no longer in the model store is skipped. A
    model that a supervisor held back is tried again, with the workers it should have: its archive may have been
    replaced, and there may be no supervisor this time.

    Args:
        folder: Of the snapshots, or None to load all archives.
        archives: Of the model store.
    """
    last = newest_snapshot(folder) if folder else None
    if folder is None or last is None:
        return Start([*archives], [], [], None)
    return restored(with_held(last, read_held(folder)), archives, known_files(folder))


def restored(last: dict[str, Any], archives: Sequence[Archive], known: set[str]) -> Start:
    """A start with the archives that a snapshot has, and those that are not ``known``."""
    entries = entries_of(last)
    loaded = [archive for archive in archives if archive.file in entries]
    paused = [archive for archive in loaded if not entries[archive.file]["minWorkers"]]
    added = [archive for archive in archives if archive.file not in known | entries.keys()]
    models: dict[str, dict[str, Any]] = {}
    for archive in loaded:  # under the version that the file has now
        models.setdefault(archive.name, {})[archive.version] = entries[archive.file]
    return Start(loaded, paused, added, json.dumps(last | {"models": models, "modelCount": len(loaded)}))


def plan_restart(
    folder: Path, model_store: Path, started: Sequence[Archive], on_skip: Callable[[str], None] | None = None
) -> Start:
    """Chooses the archives for a restart after TorchServe died: exactly those registered then.

    Args:
        folder: Of the snapshots.
        model_store: Of the archives.
        started: The archives it was started with; used if there is no snapshot.
        on_skip: As for :func:`perceptual.archives.manifest.find_archives`.
    """
    last = newest_snapshot(folder)
    if last is None:
        return Start([*started], [], [], None)
    files = [file for file in entries_of(last) if (model_store / file).exists()]
    archives = find_archives(model_store, [Path(file).stem for file in files], on_skip)
    return restored(last, archives, known_files(folder))  # models held back stay held back


def begin(folder: Path, left_out: Sequence[str]) -> None:
    """Prepares a folder for a new start: removes all snapshots but the newest, and saves the names of ``left_out``.

    A file that cannot be read is renamed, and logged.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in (folder / LEFT_OUT, folder / HELD):
        if file.exists() and READERS[file.name](file) is None:
            set_aside(file)
    write_atomically(folder / LEFT_OUT, json.dumps(left_out).encode(), mode=0o600)
    readable = [file for file in snapshot_files(folder) if read_snapshot(file)]
    for file in snapshot_files(folder):
        if file in readable[:-1]:
            file.unlink()
        elif file not in readable:
            set_aside(file)


def set_aside(file: Path) -> None:
    """Renames a file that cannot be read, so that it is kept but not used."""
    aside = file.with_name(file.name + UNREADABLE)
    file.replace(aside)
    logger.warning("cannot read %s: continuing without it; it is kept as %s", file, aside.name)


def read_held(folder: Path) -> dict[str, int]:
    """The models that are held back, as ``name/version``, and the number of workers each should have."""
    return parse_held(folder / HELD) or {}


def with_held(snapshot: dict[str, Any], held: dict[str, int]) -> dict[str, Any]:
    """A snapshot in which models that are held back have the workers they should have; changed in place."""
    for model, workers in held.items():
        name, version = model.split("/")
        if entry := snapshot.get("models", {}).get(name, {}).get(version):
            entry |= {"minWorkers": workers, "maxWorkers": workers}
    return snapshot


def write_held(folder: Path, held: dict[str, int]) -> None:
    """Saves which models are held back; in the snapshots, these have no workers."""
    write_atomically(folder / HELD, json.dumps(held).encode(), mode=0o600)


def newest_snapshot(folder: Path) -> dict[str, Any] | None:
    """The newest snapshot that is complete: TorchServe may have been killed while it wrote one."""
    return next(filter(None, map(read_snapshot, reversed(snapshot_files(folder)))), None)


def known_files(folder: Path) -> set[str]:
    """The archives that were registered since the last start, or left out at it."""
    known = set(parse_left_out(folder / LEFT_OUT) or [])
    return known.union(*(entries_of(read_snapshot(file) or {}) for file in snapshot_files(folder)))


def entries_of(snapshot: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A snapshot's entry for each archive: ``minWorkers``, ``defaultVersion``, …, by the archive's file name."""
    return {entry["marName"]: entry for versions in snapshot.get("models", {}).values() for entry in versions.values()}


def snapshot_files(folder: Path) -> list[Path]:
    """The snapshots in a folder, oldest first."""
    return sorted(folder.glob("*.cfg"), key=lambda file: (file.stat().st_mtime_ns, file.name))


def make_newest(folder: Path, before: Sequence[Path]) -> None:
    """Makes the snapshots that were not there ``before`` the newest by their times, even if the clock was set back."""
    latest = max((file.stat().st_mtime_ns for file in before if file.exists()), default=0)
    for file in snapshot_files(folder):
        if file not in before and file.stat().st_mtime_ns <= latest:
            latest += 1
            os.utime(file, ns=(latest, latest))


def read_snapshot(file: Path) -> dict[str, Any] | None:
    """The models of a snapshot, which are JSON in one property of a configuration file; None if it is incomplete."""
    try:
        snapshot: dict[str, Any] = json.loads(javaproperties.loads(file.read_text())[PROPERTY])
        entries = [(name, version, each) for name, all_ in snapshot["models"].items() for version, each in all_.items()]
        return snapshot if all(is_entry(*each) for each in entries) else None
    except (OSError, KeyError, ValueError, AttributeError, TypeError):
        return None


COUNTS = (
    "minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout", "parallelLevel"
)  # fmt: skip


def is_entry(name: str, version: str, entry: dict[str, Any]) -> bool:
    """Whether a snapshot's entry for a version is valid: TorchServe would not start with an invalid one."""
    counts = [entry[key] for key in COUNTS if key in entry]
    return (
        bool(name and version)
        and isinstance(entry["marName"], str)
        and isinstance(entry["defaultVersion"], bool)
        and {"minWorkers", "maxWorkers"} <= entry.keys()
        and all(map(is_count, counts))
        and 0 <= entry["minWorkers"] <= entry["maxWorkers"]
    )


def is_count(value: Any) -> bool:
    """Whether a value is an integer of at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def parse_held(file: Path) -> dict[str, int] | None:
    """The content of :data:`HELD`; None if there is no such file, or its content is invalid."""
    held = parse(file)
    fits = isinstance(held, dict) and all(key.count("/") == 1 and is_count(value) for key, value in held.items())
    return held if fits else None


def parse_left_out(file: Path) -> list[str] | None:
    """The content of :data:`LEFT_OUT`; None if there is no such file, or its content is invalid."""
    names = parse(file)
    return names if isinstance(names, list) and all(isinstance(each, str) for each in names) else None


def parse(file: Path) -> Any:
    """The JSON in a file; None if there is none."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


READERS: dict[str, Callable[[Path], Any]] = {HELD: parse_held, LEFT_OUT: parse_left_out}
