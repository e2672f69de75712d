"""Folders and files at any address: on this machine, or in one of pyarrow's file systems."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem

from ..errors import InputError, first_line
from ..files import write_atomically

ATOMIC = ("s3", "gcs", "abfs")  # object stores: a file appears only when it is complete
TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.tmp")  # names of files until they are complete


@dataclass(frozen=True)
class Place:
    """A folder or file.

    Attributes:
        address: As the user wrote it, without a key in it.
        filesystem: pyarrow's file system.
        path: The path in it.
    """

    address: str
    filesystem: FileSystem
    path: str

    @classmethod
    def at(cls, address: str) -> "Place":
        """The place at a path of this machine, or at an address such as ``s3://bucket/folder``.

        Raises:
            InputError: There is no file system for the address, or it does not answer.
        """
        if "://" not in address:
            return cls(address, LocalFileSystem(), str(Path(address).expanduser().absolute()))
        parts = urlsplit(address)
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        with errors_about(shown):
            filesystem, root = file_system(parts.scheme, parts.netloc, parts.query)
        return cls(shown, filesystem, (root.rstrip("/") + unquote(parts.path)).rstrip("/"))

    @property
    def is_local(self) -> bool:
        """Whether the file system is that of this machine; other machines may have the same paths."""
        return isinstance(self.filesystem, LocalFileSystem)

    def below(self, name: str | PurePosixPath) -> str:
        """The path of a file in this folder."""
        return f"{self.path}/{name}"

    def shown(self, path: str) -> str:
        """A path of this file system as an address."""
        return path if self.is_local else f"{self.filesystem.type_name}://{path.lstrip('/')}"

    def files(self) -> list[FileInfo]:
        """This file, or all files in this folder and below, sorted by path; empty if it does not exist."""
        with errors_about(self.address):
            found = self.filesystem.get_file_info(self.path)
            if found.type == FileType.File:
                return [found]
            if found.type == FileType.NotFound:
                return []
            below = self.filesystem.get_file_info(FileSelector(self.path, recursive=True))
        return sorted((each for each in below if each.type == FileType.File), key=lambda each: each.path.split("/"))

    def check_there(self) -> None:
        """Raises InputError if the file or folder does not exist."""
        with errors_about(self.address):
            if self.filesystem.get_file_info(self.path).type == FileType.NotFound:
                raise FileNotFoundError

    def remove(self, paths: list[str]) -> None:
        """Deletes files."""
        for path in paths:
            self.filesystem.delete_file(path)

    def read(self, path: str) -> bytes:
        """The content of a file. Raises OSError."""
        with self.filesystem.open_input_stream(path) as file:
            return bytes(file.read())

    def write(self, path: str, content: bytes) -> None:
        """Writes a file atomically. Raises OSError."""
        if self.is_local:
            write_atomically(path, content)
        else:
            with self.writing(path) as file:
                file.write(content)

    @contextmanager
    def writing(self, path: str) -> Iterator[Any]:
        """A stream for a file, which appears only when it is complete. Raises OSError."""
        if self.filesystem.type_name in ATOMIC:
            with self.filesystem.open_output_stream(path) as file:
                yield file
            return
        folder, _, name = path.rpartition("/")
        self.filesystem.create_dir(folder)
        temporary = f"{folder}/.{name}.{os.getpid()}.tmp"
        with self.filesystem.open_output_stream(temporary) as file:
            yield file
        self.filesystem.move(temporary, path)


@cache
def file_system(scheme: str, host: str, query: str) -> tuple[FileSystem, str]:
    """The file system of an address, and the path of its root there."""
    root = SplitResult(scheme, host, "/", query, "").geturl()
    filesystem, path = FileSystem.from_uri(root)
    return filesystem, path


@contextmanager
def errors_about(address: str) -> Iterator[None]:
    """Raises InputError, with the address in its message, for errors of file systems."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{address}: there is no such file, folder or bucket") from error
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow raises the last for unsupported operations
        raise InputError(f"{address}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The message of a file system's error; for AWS, its code and text without the request's number."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    message = first_line(error)
    aws = re.search(r"AWS Error (\w+)[^:]*: (.*?)(?: \(Request ID.*)?$", message)
    return f"{aws[1].lower().replace('_', ' ')}: {aws[2]}" if aws else message
