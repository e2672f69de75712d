"""``perceptual completion``: what a shell needs to complete this command line."""

from argparse import Namespace
from typing import Any

DESCRIPTION = """Prints a script that lets the shell complete commands and options.

  eval "$(perceptual completion bash)"                                      for this shell
  mkdir -p ~/.local/share/bash-completion/completions                       for every shell
  perceptual completion bash > ~/.local/share/bash-completion/completions/perceptual
  mkdir -p ~/.zfunc; perceptual completion zsh > ~/.zfunc/_perceptual       with ~/.zfunc in fpath
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "completion", help="let the shell complete this command line", description=DESCRIPTION
    )
    parser.add_argument("shell", choices=("bash", "zsh"), help="which shell")
    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Prints the script."""
    import shtab

    from . import build_parser

    print(shtab.complete(build_parser(), args.shell))
