"""``perceptual completion``: prints a script for completion in a shell."""

from argparse import ArgumentParser, Namespace, _SubParsersAction
from typing import Any

DESCRIPTION = """Prints a script that lets the shell complete commands, options, files and names.

  eval "$(perceptual completion bash)"                                      for this shell
  mkdir -p ~/.local/share/bash-completion/completions                       for every shell
  perceptual completion bash > ~/.local/share/bash-completion/completions/perceptual
  mkdir -p ~/.zfunc; perceptual completion zsh > ~/.zfunc/_perceptual       with ~/.zfunc in fpath
  perceptual completion fish > ~/.config/fish/completions/perceptual.fish
"""
SHELLS = ("bash", "zsh", "fish")


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "completion", help="let the shell complete this command line", description=DESCRIPTION
    )
    parser.add_argument("shell", choices=SHELLS, help="which shell")
    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Prints the script."""
    import shtab

    from ..inference.metadata import OWN, shipped_weights
    from . import build_parser

    shipped = " ".join(shipped_weights())
    networks = names_or_files("networks", f"printf '%s\\n' {shipped}; {stems(str(OWN), 'safetensors')}")
    archives = names_or_files("archives", stems("model_store", "mar"))
    kinds = dict.fromkeys(("FILE", "OUT", "PAINTING", "PATH", "PHOTO"), shtab.FILE)
    kinds |= dict.fromkeys(("DIR", "FOLDER"), shtab.DIRECTORY)
    parser = build_parser()
    set_completions(parser, kinds | {"MODEL": networks, "NAME": archives})
    print(shtab.complete(parser, args.shell))


def set_completions(parser: ArgumentParser, kinds: dict[str, Any]) -> None:
    """Sets for shtab how each argument is completed, by its metavar."""
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for each in action.choices.values():
                set_completions(each, kinds)
        elif how := kinds.get(str(action.metavar or action.dest.upper())):
            action.complete = how  # type: ignore[attr-defined]


def stems(folder: str, suffix: str) -> str:
    """A shell command that lists the names of a folder's files of one kind, without their suffix."""
    return f"ls {folder} 2>/dev/null | sed -n 's/\\.{suffix}$//p'"


def names_or_files(what: str, command: str) -> dict[str, Any]:
    """For shtab: completes what a shell command prints, and files."""
    name = f"_perceptual_{what}"
    here = "(commandline -ct)"
    return {
        **dict.fromkeys(("bash", "zsh"), name),
        "fish": f"({name})",
        "preamble": {
            "bash": f'{name}() {{ compgen -W "$({command})" -- "$1"; compgen -f -- "$1"; }}',
            "zsh": f'{name}() {{ compadd -- ${{(f)"$({command})"}}; _files; }}',
            "fish": f"function {name}; {command}; __fish_complete_path {here}; end",
        },
    }
