"""Which photos go to which results, and which of them are done already."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath
from typing import NamedTuple

from ..errors import InvalidOption
from ..files import EXTENSIONS, check_apart, is_image, named_apart, suffix_of
from .job import NOTES, REPORT
from .places import TEMPORARY, Place, errors_about

LIST = ".txt"  # how the name of a file ends that lists photos


class Photo(NamedTuple):
    """A photo.

    Attributes:
        place: Where it was found: it gives the file system.
        path: Of the file there.
        changed: When, in nanoseconds since 1970; None if it is not there.
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
    """What there is to do.

    Attributes:
        missing: Photos whose result is missing, or older than they, or than the options.
        kept: The others.
        passed_over: Files in the folders that are no images by their names.
        unfinished: Paths, in the output, of what an earlier job was writing when it was killed.
    """

    missing: list[Task] = field(default_factory=list)
    kept: list[Task] = field(default_factory=list)
    passed_over: list[PurePosixPath] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)


def find_tasks(inputs: Sequence[Place], output: Place, format: str | None) -> tuple[list[Task], list[PurePosixPath]]:
    """All photos with their results, and the files passed over.

    Results have the names that ``perceptual stylize`` gives them.

    Raises:
        InputError: An input cannot be read.
        InvalidOption: There is no photo, or a result would overwrite a photo or another result.
    """
    found: list[tuple[Photo, PurePosixPath]] = []
    passed_over: list[PurePosixPath] = []
    for each in inputs:
        photos, others = photos_at(each)
        found += photos
        passed_over += others
    if not found:
        raise InvalidOption(f"no images in {inputs[0].address}; looked for {' '.join(EXTENSIONS)}")
    jobs = named_apart(found, suffix_of(format))
    check_apart(jobs)
    paths = {identity(photo.place, photo.path) for photo, _ in jobs}
    if overwriting := [result for _, result in jobs if identity(output, output.below(result)) in paths]:
        raise InvalidOption(f"{output.below(overwriting[0])} would overwrite a photo; choose another output")
    return [Task(*job) for job in jobs], passed_over


def identity(place: Place, path: str) -> tuple[str, str]:
    """What is the same for two paths of one file."""
    folder, _, name = path.rpartition("/")
    return place.filesystem.type_name, f"{real_folder(folder) if place.is_local else folder}/{name}"


@cache
def real_folder(folder: str) -> str:
    """A folder's path without links; asked once, as there are many files in each."""
    return os.path.realpath(folder)


def photos_at(place: Place) -> tuple[list[tuple[Photo, PurePosixPath]], list[PurePosixPath]]:
    """The photos at an address with the names they keep, and the other files there."""
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
    """The photos that a file lists, an address or a path from its own folder in each line.

    They keep the names that they have below the folder that holds all of them.
    """
    with errors_about(place.address):
        lines = place.read(place.path).decode().splitlines()
    folder = PurePosixPath(place.path).parent
    homes: dict[int, tuple[Place, list[str]]] = {}  # by file system
    for line in filter(None, map(str.strip, lines)):
        where = Place.at(line) if "://" in line else Place(line, place.filesystem, str(folder / line))
        homes.setdefault(id(where.filesystem), (where, []))[1].append(where.path)
    photos = [photo for home, paths in homes.values() for photo in photos_of(home, paths)]
    common = os.path.commonpath([photo.path.rpartition("/")[0] for photo in photos]) if photos else ""
    return [(photo, PurePosixPath(photo.path[len(common) :].lstrip("/"))) for photo in photos]


def photos_of(home: Place, paths: list[str]) -> list[Photo]:
    """Photos at some paths of a file system, whether they are there or not."""
    with errors_about(home.address):
        return [Photo(home, info.path, info.mtime_ns) for info in home.filesystem.get_file_info(paths)]


def divide(tasks: list[Task], passed_over: list[PurePosixPath], output: Place, since: int) -> Plan:
    """Sets apart what is done already: results newer than their photo, and than the options.

    Args:
        tasks: All of them.
        passed_over: As in :class:`Plan`.
        output: Where results are.
        since: When the options became what they are, in nanoseconds since 1970.
    """
    there = {file.path: file.mtime_ns for file in output.files()}
    plan = Plan(passed_over=passed_over)
    for task in tasks:
        made = there.get(output.below(task.result))
        done = made is not None and task.photo.changed is not None and made > task.photo.changed and made >= since
        (plan.kept if done else plan.missing).append(task)
    ours = {output.below(each) for each in (REPORT, NOTES, *(str(task.result) for task in tasks))}
    plan.unfinished = [path for path in there if finished_name(path) in ours]
    return plan


def finished_name(path: str) -> str | None:
    """The path that a file has when it is whole; None if this is not a name from before."""
    folder, _, name = path.rpartition("/")
    unfinished = TEMPORARY.fullmatch(name)
    return f"{folder}/{unfinished['name']}" if unfinished else None
