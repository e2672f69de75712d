"""Finds the photos, names their results, and sets apart those that are done already."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..errors import InvalidOption
from ..files import EXTENSIONS, check_apart, is_image, named_apart, suffix_of
from .job import NOTES, REPORT
from .origins import ORIGINS, Origin
from .places import TEMPORARY, Place, errors_about

LIST = ".txt"  # ending of a file that lists photos


class Photo(NamedTuple):
    """A photo.

    Attributes:
        place: Where it was found; has the file system.
        path: Its path in the file system.
        changed: Time of its last change, in nanoseconds since 1970; None if it does not exist.
    """

    place: Place
    path: str
    changed: int | None

    def __str__(self) -> str:
        return self.place.shown(self.path)


class Task(NamedTuple):
    """A photo to convert, and the path of its result below the output."""

    photo: Photo
    result: PurePosixPath


@dataclass
class Plan:
    """The photos of a job, by what there is to do.

    Attributes:
        missing: Photos whose result is missing, of another photo, or older than the photo or the options.
        kept: The other photos.
        origins: Of all results in the output, by path below it, as they are once the job has begun.
        others: Files in the folders whose names are not those of images.
        unfinished: Paths of temporary files in the output, left by a job that was killed.
    """

    missing: list[Task] = field(default_factory=list)
    kept: list[Task] = field(default_factory=list)
    origins: dict[str, Origin] = field(default_factory=dict)
    others: list[PurePosixPath] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)


def find_tasks(inputs: Sequence[Place], output: Place, format: str | None) -> tuple[list[Task], list[PurePosixPath]]:
    """All photos with their results, and the other files.

    Results have the names that ``perceptual stylize`` gives them.

    Raises:
        InputError: An input cannot be read.
        InvalidOption: There is no photo, or a result would overwrite a photo or another result, or be a photo itself.
    """
    found: list[tuple[Photo, PurePosixPath]] = []
    others: list[PurePosixPath] = []
    for each in inputs:
        photos, rest = photos_at(each)
        found += photos
        others += rest
    if not found:
        raise InvalidOption(f"no images in {inputs[0].address}; looked for {' '.join(EXTENSIONS)}")
    jobs = named_apart(found, suffix_of(format))
    check_apart(jobs)
    paths = {identity(photo.place, photo.path) for photo, _ in jobs}
    if overwriting := [result for _, result in jobs if identity(output, output.below(result)) in paths]:
        raise InvalidOption(f"{output.below(overwriting[0])} would overwrite a photo; choose another output")
    check_outside(output, {result.parent for _, result in jobs}, inputs)
    return [Task(*job) for job in jobs], others


def check_outside(output: Place, folders: Iterable[PurePosixPath], inputs: Sequence[Place]) -> None:
    """Raises InvalidOption if folders below the output are in an input: a repeated job would find its own results."""
    searched = [real_folder(each, each.path) for each in inputs]
    for folder in folders:
        path = str(PurePosixPath(output.below(folder)))  # without the "." of the output itself
        if any(PurePosixPath(real_folder(output, path)).is_relative_to(each) for each in searched):
            raise InvalidOption(f"results in {path} would be photos when the job is repeated; choose another output")


def identity(place: Place, path: str) -> str:
    """A path that is the same for all paths of one file: without links."""
    folder, _, name = path.rpartition("/")
    direct = f"{real_folder(place, folder or '/').rstrip('/')}/{name}"
    return os.path.realpath(direct) if place.is_local and Path(direct).is_symlink() else direct


def real_folder(place: Place, folder: str) -> str:
    """A path that is the same for all paths of one folder: without links."""
    return without_links(folder) if place.is_local else place.shown(folder)


@cache  # as a folder has many files
def without_links(folder: str) -> str:
    """The path of a folder of this machine without links."""
    return os.path.realpath(folder)


def photos_at(place: Place) -> tuple[list[tuple[Photo, PurePosixPath]], list[PurePosixPath]]:
    """The photos at an address with the names of their results, without ending, and the other files there."""
    files = place.files()
    if [file.path for file in files] == [place.path]:
        if place.path.endswith(LIST):
            return listed(place), []
        return [(Photo(place, place.path, files[0].mtime_ns), PurePosixPath(files[0].base_name))], []
    if not files:
        place.check_there()
    images, others = [], []
    for file in files:
        name = PurePosixPath(file.path)
        if is_image(name):
            images.append((Photo(place, file.path, file.mtime_ns), name.relative_to(place.path)))
        else:
            others.append(name)
    return images, others


def listed(place: Place) -> list[tuple[Photo, PurePosixPath]]:
    """The photos that a file lists: in each line an address, or a path relative to the file's folder.

    Their names are their paths below the folder that contains all of them.
    """
    with errors_about(place.address):
        lines = place.read(place.path).decode("utf-8-sig").splitlines()
    folder = PurePosixPath(place.path).parent
    homes: dict[int, tuple[Place, list[str]]] = {}  # by file system
    for line in filter(None, map(str.strip, lines)):
        where = Place.at(line) if "://" in line else Place(line, place.filesystem, str(folder / line))
        homes.setdefault(id(where.filesystem), (where, []))[1].append(where.path)
    photos = [photo for home, paths in homes.values() for photo in photos_of(home, paths)]
    # Without "..", which would leave OUT, and all from a root, which the paths in a bucket do not have.
    names = [PurePosixPath(os.path.normpath(f"/{photo.path.lstrip('/')}")) for photo in photos]
    common = os.path.commonpath([name.parent for name in names]) if names else ""
    return [(photo, name.relative_to(common)) for photo, name in zip(photos, names, strict=True)]


def photos_of(home: Place, paths: list[str]) -> list[Photo]:
    """Photos at paths of a file system, which need not exist."""
    with errors_about(home.address):
        return [Photo(home, info.path, info.mtime_ns) for info in home.filesystem.get_file_info(paths)]


def divide(tasks: list[Task], others: list[PurePosixPath], output: Place, known: Mapping[str, Origin]) -> Plan:
    """Sets apart the photos that are done: those whose result is of this photo, and newer than it and the options.

    Args:
        tasks: All of them.
        others: As in :class:`Plan`.
        output: Where results are.
        known: The origins of the results of earlier jobs with the same options.
    """
    there = {file.path: file.mtime_ns for file in output.files(linked=True)}
    plan = Plan(others=others, origins=dict(known))
    for task in tasks:
        photo, name = identity(task.photo.place, task.photo.path), str(task.result)
        if name not in known or known[name].photo != photo:
            plan.origins[name] = Origin(photo, None)
        done = is_newer(there.get(output.below(name)), task.photo.changed, plan.origins[name].since)
        (plan.kept if done else plan.missing).append(task)
    if output.is_local:  # elsewhere nothing tells whether another job is writing them
        ours = {output.below(each) for each in (REPORT, NOTES, ORIGINS, *(str(task.result) for task in tasks))}
        plan.unfinished = [path for path in there if finished_name(path) in ours]
    return plan


def is_newer(written: int | None, changed: int | None, since: int | None) -> bool:
    """Whether a result is newer than its photo and than its origin. Times as there; None if there is none yet."""
    return not (written is None or changed is None or since is None) and written > changed and written >= since


def finished_name(path: str) -> str | None:
    """The path that a temporary file gets when it is complete; None for other files."""
    folder, _, name = path.rpartition("/")
    unfinished = TEMPORARY.fullmatch(name)
    return f"{folder}/{unfinished['name']}" if unfinished else None
