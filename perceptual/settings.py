"""Settings: dataclass fields with a kind of value, a default and a help text.

A setting is defined once and becomes a request's header or form field, a command-line option, a recipe's key and a
row of a table in the documentation. :func:`setting` makes such a field, :func:`parse` builds the dataclass from text
or TOML values, and :func:`settings_of` lists the fields.
"""

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

from .errors import InvalidOption, did_you_mean

T = TypeVar("T")
N = TypeVar("N", int, float)


class Kind(Protocol):
    """The type and range of a setting's values; ``str(kind)`` completes the message “expected …”."""

    def parse(self, value: Any) -> Any:
        """Converts a value to its type. Raises ValueError if it is not of this kind."""


@dataclass(frozen=True)
class Number:
    """A number from ``low`` to ``high``, both included."""

    low: float = float("-inf")
    high: float = float("inf")

    def parse(self, value: Any) -> float:
        """A float, from a number or text."""
        if isinstance(value, bool) or not math.isfinite(number := float(value)):
            raise ValueError
        return checked_range(self, number)

    def __str__(self) -> str:
        return f"a number {describe_range(self.low, self.high)}".strip()


@dataclass(frozen=True)
class Integer:
    """A whole number from ``low`` to ``high``, both included."""

    low: float = float("-inf")
    high: float = float("inf")

    def parse(self, value: Any) -> int:
        """An int, from a number or text."""
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError
        return checked_range(self, int(value))

    def __str__(self) -> str:
        return f"a whole number {describe_range(self.low, self.high)}".strip()


def alternatives(words: Sequence[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    return " or ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]


@dataclass(frozen=True)
class OneOf:
    """One of a few whole numbers."""

    numbers: tuple[int, ...]

    def parse(self, value: Any) -> int:
        """An int, from a number or text."""
        number = Integer().parse(value)
        if number not in self.numbers:
            raise ValueError
        return number

    def __str__(self) -> str:
        return alternatives([str(each) for each in self.numbers])


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def parse(self, value: Any) -> str:
        """One of the words, in lower case."""
        text = str(value).strip().lower()
        if text not in self.words:
            raise ValueError
        return text

    def __str__(self) -> str:
        return alternatives(self.words)


@dataclass(frozen=True)
class Switch:
    """On or off."""

    def parse(self, value: Any) -> bool:
        """A bool, from ``on``/``off`` and their usual synonyms."""
        text = str(value).strip().lower()
        if text in ("on", "true", "yes", "1"):
            return True
        if text in ("off", "false", "no", "0"):
            return False
        raise ValueError

    def __str__(self) -> str:
        return "on or off"


@dataclass(frozen=True)
class Text:
    """Any text that is not blank."""

    what: str = "a text"

    def parse(self, value: Any) -> str:
        """The text itself."""
        if not isinstance(value, str) or not value.strip():
            raise ValueError
        return value

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True)
class FilePath:
    """A file or folder, which need not exist yet."""

    what: str = "a path"

    def parse(self, value: Any) -> Path:
        """A Path, with ``~`` expanded."""
        if not isinstance(value, str | Path) or not str(value):
            raise ValueError
        try:
            return Path(value).expanduser()
        except RuntimeError as error:  # ~NAME of an unknown user
            raise ValueError from error

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True)
class Several:
    """One or more values of a kind; in text, separated by spaces or commas."""

    kind: Kind

    def parse(self, value: Any) -> tuple[Any, ...]:
        """A tuple, from text or a sequence."""
        if isinstance(value, str):
            value = value.replace(",", " ").split()
        if not isinstance(value, Sequence):
            value = [value]
        if not value:
            raise ValueError
        return tuple(self.kind.parse(item) for item in value)

    def __str__(self) -> str:
        return f"one or more of: {self.kind}"


def checked_range(kind: Number | Integer, value: N) -> N:
    """Returns a value within the range of a kind. Raises ValueError for any other."""
    if not kind.low <= value <= kind.high:
        raise ValueError
    return value


def describe_range(low: float, high: float) -> str:
    """“from 0 to 1”, “of at least 1”, “of at most 5” or nothing."""
    if low > float("-inf") and high < float("inf"):
        return f"from {low:g} to {high:g}"
    if low > float("-inf"):
        return f"of at least {low:g}"
    return f"of at most {high:g}" if high < float("inf") else ""


def setting(default: Any, kind: Kind, help: str, group: str = "") -> Any:
    """A dataclass field with its kind, its help text and the group it is shown in.

    A default of ``dataclasses.MISSING`` makes it required.
    """
    return field(default=default, metadata={"kind": kind, "help": help, "group": group})


def settings_of(cls: type) -> list[Field[Any]]:
    """The fields of a dataclass that were made by :func:`setting`, in order."""
    return [each for each in fields(cls) if "kind" in each.metadata]


def option_name(each: Field[Any]) -> str:
    """The name of a setting outside Python: ``keep-colors`` for ``keep_colors``."""
    return each.name.replace("_", "-")


def described(each: Field[Any]) -> dict[str, Any]:
    """A setting as JSON: its name, its values in words, its default and its meaning."""
    values, meaning = str(each.metadata["kind"]), each.metadata["help"]
    return {"name": option_name(each), "values": values, "default": each.default, "meaning": meaning}


def parse(cls: type[T], values: Mapping[str, Any], without: Container[str] = ()) -> T:
    """Builds a dataclass of settings from values by option name.

    Args:
        cls: The dataclass.
        values: The values that are given.
        without: Names of settings that cannot be given.

    Raises:
        InvalidOption: An unknown name, a missing required one, or an invalid value; the message says what was
            expected and what was given.
    """
    known = {option_name(each): each for each in settings_of(cls) if each.name not in without}
    if unknown := [name for name in values if name not in known]:
        hint = did_you_mean(unknown[0], known)
        raise InvalidOption(f"unknown option {unknown[0]}; the options are {', '.join(known)}{hint}")
    for name, each in known.items():
        if each.default is MISSING and name not in values:
            raise InvalidOption(f"{name} is missing: {each.metadata['help']}")
    return cls(**{known[name].name: parse_one(known[name], value) for name, value in values.items()})


def parse_one(each: Field[Any], value: Any) -> Any:
    """Converts one value to its type. Raises InvalidOption as :func:`parse`."""
    kind = each.metadata["kind"]
    try:
        return kind.parse(value)
    except (ValueError, TypeError, OverflowError):
        raise InvalidOption(f"{option_name(each)}: expected {kind}, got {str(value)[:80]!r}") from None
