"""Folders and files at any address: on this machine, or in one of pyarrow's file systems."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem

from ..errors import InputError, first_line
from ..files import write_atomically

ATOMIC = ("s3", "gcs", "abfs")  # object stores: a file appears only when it is complete
TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.tmp")  # names of files until they are complete
KEY = r"(?:[^/]*@|(?<!hdfs://)[^/:]*:[^@]*@)"  # in an address: may have a slash; hdfs://host:8020/a@b has none
ADDRESS = re.compile(
    rf"(?P<scheme>.*?)://(?P<key>{KEY}?)(?P<host>[^/?]*)(?P<path>.*?)(?:\?(?P<options>[^?/=]+=[^?]*))?", re.DOTALL
)


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
        scheme, key, host, path, options = ADDRESS.fullmatch(address).groups(default="")  # type: ignore[union-attr]
        scheme = scheme.lower()
        if scheme == "file" and options:  # this machine's files have no options: it is a part of the name
            path, options = f"{path}?{options}", ""
        shown = f"{scheme}://{host}{path}"
        with errors_about(shown):
            filesystem, root = file_system(scheme, key.replace("/", "%2F") + host, options)
        return cls(shown, filesystem, (root.rstrip("/") + unquote(path)).rstrip("/"))

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

    def files(self, linked: bool = False) -> list[FileInfo]:
        """This file, or all files in this folder and below, sorted by path; empty if it does not exist.

        Args:
            linked: Whether folders that are links are entered too.
        """
        with errors_about(self.address):
            found = self.filesystem.get_file_info(self.path)
            if found.type == FileType.File:
                return [found]
            if found.type == FileType.NotFound:
                return []
            enters_links = linked or not self.is_local
            selected = FileSelector(self.path, recursive=True) if enters_links else paths_below(self.path)
            below = self.filesystem.get_file_info(selected)
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


def paths_below(folder: str) -> list[str]:
    """The paths of all files in a folder of this machine and below, without those in folders that are links."""

    def fail(error: OSError) -> None:
        raise error

    return [f"{parent.rstrip('/')}/{name}" for parent, _, names in os.walk(folder, onerror=fail) for name in names]


@cache
def file_system(scheme: str, host: str, options: str) -> tuple[FileSystem, str]:
    """The file system of an address, and the path of its root there."""
    filesystem, path = FileSystem.from_uri(f"{scheme}://{host}/" + (f"?{options}" if options else ""))
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
    """The message of a file system's error, without keys; for AWS, its code and text without the request's number."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    message = re.sub(f"(?<=://){KEY}", "", first_line(error))
    aws = re.search(r"AWS Error (\w+)[^:]*: (.*?)(?: \(Request ID.*)?$", message)
    return f"{aws[1].lower().replace('_', ' ')}: {aws[2]}" if aws else message
