"""Command-line arguments made from settings, and the parser all commands share."""

import argparse
import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, BooleanOptionalAction, Namespace
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Any, NoReturn

from ..errors import did_you_mean
from ..settings import Choice, Kind, OneOf, Several, Switch, option_name, settings_of


class Parser(ArgumentParser):
    """A parser that keeps line breaks in descriptions, and reports errors in one line.

    Unknown options and commands are reported before missing ones, and by the parser of the command they belong to.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(
            *args, **{"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False, **kwargs}
        )

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Namespace | None = None
    ) -> tuple[Namespace, list[str]]:
        """Parses arguments; unknown ones are errors, also in a command's parser, which gets only its own arguments."""
        arguments = sys.argv[1:] if args is None else args
        parsed, left = super().parse_known_args([*self.checked(arguments)], namespace)
        if left:
            self.error(f"{left[0]} is an unexpected argument")
        return parsed, left

    def checked(self, args: Iterable[str]) -> Iterator[str]:
        """Checks the options and the command's name, up to ``--`` or that name, and yields all arguments."""
        commands = self._subparsers and self._subparsers._group_actions[0].choices
        rest = iter(args)
        for each in rest:
            if each.startswith("-") and each not in ("-", "--") and not self._negative_number_matcher.match(each):
                yield self.option(each)
                continue
            if commands and each not in commands:
                self.error(f"there is no command {each}{did_you_mean(each, commands)}")
            yield each
            if commands or each == "--":
                break
        yield from rest

    def option(self, argument: str) -> str:
        """Returns a known option; or, for a file whose name begins with a dash, its path. Else ends the program."""
        known = self._option_string_actions
        name = argument.partition("=")[0]
        if name in known or (not name.startswith("--") and name[:2] in known):
            return argument
        if Path(argument).exists():
            return f"./{argument}"
        self.error(f"there is no option {name}{did_you_mean(name, known)}")

    def error(self, message: str) -> NoReturn:
        """Ends the program with status 2."""
        report(f"{self.prog}: {message} (see {self.prog} --help)")
        sys.exit(2)


def report(message: str) -> None:
    """Prints an error in one line, red on a terminal."""
    red, plain = ("\033[31m", "\033[0m") if sys.stderr.isatty() else ("", "")
    print(f"{red}{message}{plain}", file=sys.stderr)


@contextmanager
def working() -> Iterator[Callable[[str], None]]:
    """A spinner for the length of a block, and a function that shows a message beside it.

    Messages are escaped: rich would read brackets in a file's name as markup.
    """
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status("starting") as status:
        yield lambda message: status.update(escape(message))


def add_settings(
    parser: ArgumentParser, cls: type, without: Container[str] = (), without_default: Container[str] = ()
) -> None:
    """Adds an option for every setting of a dataclass, in its groups.

    Options that are not on the command line are missing from the parsed result.

    Args:
        parser: The parser.
        cls: The dataclass.
        without: Names of settings to leave out.
        without_default: Names of those whose default is not the class's: the help shows none.
    """
    groups: dict[str, Any] = {}
    for each in (each for each in settings_of(cls) if each.name not in without):
        title = each.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title) if title else parser
        add_setting(groups[title], each, default=each.name not in without_default)


def add_setting(group: Any, each: Field[Any], *, default: bool = True) -> None:
    """Adds the option for one setting; ``default`` is whether the help shows its default."""
    kind = each.metadata["kind"]
    help_text = each.metadata["help"].replace("%", "%%")
    if default and each.default not in (None, MISSING, ()) and not isinstance(kind, Switch):
        help_text += f" (default: {readable(each.default)})"
    flag = f"--{option_name(each)}"
    if isinstance(kind, Switch):
        group.add_argument(flag, dest=each.name, action=BooleanOptionalAction, default=SUPPRESS, help=help_text)
        return
    group.add_argument(
        flag,
        dest=each.name,
        default=SUPPRESS,
        metavar=metavar(kind),
        nargs="+" if isinstance(kind, Several) else None,
        type=converter(kind.kind if isinstance(kind, Several) else kind),
        help=help_text,
    )


def converter(kind: Kind) -> Callable[[str], Any]:
    """A function for argparse that parses a value and says what was expected."""

    def convert(text: str) -> Any:
        try:
            return kind.parse(text)
        except (ValueError, OverflowError):
            raise ArgumentTypeError(f"expected {kind}, got {text!r}") from None

    return convert


def metavar(kind: Kind) -> str:
    """How a value is shown in the help, as argparse's metavar."""
    if isinstance(kind, Several):
        return metavar(kind.kind)
    if isinstance(kind, Choice):
        return "{" + ",".join(kind.words) + "}"
    if isinstance(kind, OneOf):
        return "{" + ",".join(map(str, kind.numbers)) + "}"
    return type(kind).__name__.removeprefix("File").upper()


def readable(default: Any) -> str:
    """A default as it would be typed."""
    if isinstance(default, tuple):
        return " ".join(map(readable, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


def given(args: Namespace, cls: type) -> dict[str, Any]:
    """The settings given on the command line, by option name, for :func:`perceptual.settings.parse`."""
    return {option_name(each): getattr(args, each.name) for each in settings_of(cls) if hasattr(args, each.name)}
