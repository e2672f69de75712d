import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import perceptual
from perceptual import errors

pytestmark = pytest.mark.slow  # starts Pythons

ROOT = Path(__file__).parents[1]


def test_the_public_names_are_all_there():
    assert sorted(perceptual.__all__) == dir(perceptual)
    assert all(getattr(perceptual, name) is not None for name in perceptual.__all__)


def test_the_changelog_says_what_is_in_this_version():
    assert f"\n## {perceptual.__version__} - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_error_is_a_public_name():
    raised = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert len(raised) > 10 and raised <= set(perceptual.__all__)


@pytest.mark.slow
def test_type_checkers_see_the_same_as_python(tmp_path):
    uses = "\n".join(f"perceptual.{name}" for name in perceptual.__all__)
    (tmp_path / "uses.py").write_text(f"import perceptual\nreveal_type(perceptual.load)\n{uses}\n")
    # Without torch's own types, which take most of a minute; make lint checks the package with them.
    alone = ["--no-site-packages", "--follow-imports", "silent", "--cache-dir", os.devnull]
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", *alone, str(tmp_path / "uses.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout
    assert "-> perceptual.inference.predictor.Predictor" in done.stdout


def modules_after(program):
    """The names of all modules that a program imports, itself or by what it imports."""
    program += "\nimport sys; print('\\n'.join(sys.modules))"
    return set(subprocess.check_output([sys.executable, "-c", program], text=True).splitlines())


def test_importing_the_package_imports_the_standard_library_alone():
    before, after = modules_after(""), modules_after("import perceptual")
    assert {name for name in after - before if name.split(".")[0] not in sys.stdlib_module_names} == {"perceptual"}


@pytest.mark.parametrize("room", ["archives", "client", "serving"])
def test_no_module_of_the_serving_rooms_waits_for_torch(room):
    package = import_module(f"perceptual.{room}")
    names = [each.name for each in walk_packages(package.__path__, f"{package.__name__}.")]
    assert len(names) > 1 and "torch" not in modules_after(f"import {', '.join(names)}")


@pytest.mark.parametrize(
    "command", ["--version", "train style --help", "status --port 1", "token --port 1", "package x"]
)
def test_a_command_that_computes_nothing_does_not_wait_for_torch(command):
    program = f"from perceptual.commands import main\ntry: main({command.split()!r})\nexcept SystemExit: pass"
    assert not {"torch", "numpy"} & modules_after(program)


def test_optimizing_one_picture_waits_for_no_tensorboard():
    assert "tensorboard" not in modules_after("import perceptual_training.picture_optimization")


def test_every_error_has_its_status():
    statuses = {name: kind.status for name, kind in vars(errors).items() if hasattr(kind, "status")}
    for line in errors.__doc__.splitlines():  # the tree drawn in the docstring
        for name, status in statuses.items():
            if name in line.split():
                assert str(status) in line.split()
    assert all(any(name in line.split() for line in errors.__doc__.splitlines()) for name in statuses)
