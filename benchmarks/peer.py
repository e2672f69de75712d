"""pytorch/examples' ``fast_neural_style``, the best known implementation of the same paper, from a checkout of it."""

from argparse import ArgumentParser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from perceptual.errors import InvalidOption

NAME = "pytorch/examples"


def add_peer(parser: ArgumentParser) -> None:
    """Adds the option that names the checkout."""
    parser.add_argument(
        "--peer", type=Path, metavar="DIR", help=f"a checkout of {NAME}' fast_neural_style, to be measured in turn"
    )


def peer_module(checkout: Path, name: str) -> ModuleType:
    """One of its modules, whose names are too common for ``sys.path``.

    Raises:
        InvalidOption: The folder is not a checkout of it.
    """
    file = checkout / "neural_style" / f"{name}.py"
    if not file.is_file():
        raise InvalidOption(f"--peer {checkout} is not a checkout of {NAME}' fast_neural_style: there is no {file}")
    spec = spec_from_file_location(f"peer_{name}", file)
    assert spec and spec.loader  # of a .py file there always are
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
