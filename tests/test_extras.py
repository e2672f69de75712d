import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires

import pytest

from perceptual.extras import EXTRAS

pytestmark = pytest.mark.slow  # starts Pythons

WITH_AIOHTTP = ("multidict", "yarl")
HIDDEN = """
import sys

class Hidden:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {modules!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden)
"""


def without(extras, program):
    """Runs a program for which the modules of extras are not installed."""
    program = HIDDEN.format(modules=[module for extra in extras for module in EXTRAS[extra]]) + program
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("serve", "serve"),
        ("serve", "status --url http://127.0.0.1:1"),
        ("serve", "models register x.mar --url http://127.0.0.1:1"),
        ("train", "evaluate super-resolution --model x --data x"),
        ("video", "video README.md --model x -o /tmp/x.mp4"),
        ("train", "optimize README.md --style-image x -o /tmp/x.png"),
    ],
)
def test_a_command_without_its_extra_is_one_sentence_with_the_pip_line(extra, command):
    done = without([extra], f"from perceptual.commands import main; sys.exit(main({command.split()!r}))")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"is not installed: pip install 'torchserve-perceptual[{extra}]'" in done.stderr


def test_python_without_an_extra_says_so_too():
    assert "MissingExtra" in without(["serve"], "import perceptual; perceptual.Server").stderr


def test_networks_and_clients_need_no_extra(tmp_path, photo, weights):
    (tmp_path / "photo.png").write_bytes(photo)
    photo, output = str(tmp_path / "photo.png"), str(tmp_path / "out.png")
    stylize = ["stylize", photo, "--model", str(weights), "-o", output, "--engine", "eager"]
    program = f"""
import perceptual
from perceptual.commands import main
assert perceptual.InferenceClient and perceptual.ManagementClient and perceptual.find_server
sys.exit(main({stylize!r}))
"""
    done = without(EXTRAS, program)
    assert done.returncode == 0, done.stderr


def test_the_modules_of_an_extra_are_those_that_setup_installs():
    wanted = [each.partition(";") for each in requires("torchserve-perceptual") or ()]
    distributions = packages_distributions()
    for extra, modules in EXTRAS.items():
        listed = {re.split(r"[\[>=]", name)[0].strip().lower() for name, _, when in wanted if extra in when}
        for module in modules:
            (name, *_) = distributions[module]
            assert name.lower().replace("_", "-") in listed or module in ("multidict", "yarl"), (
                module
            )  # these two come with aiohttp
