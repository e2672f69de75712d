import subprocess
import sys

import pytest

import perceptual

SURFACE = {
    "ImageTooLarge",
    "InferenceClient",
    "InputError",
    "InvalidImage",
    "InvalidOption",
    "ManagementClient",
    "NotAcceptable",
    "PerceptualError",
    "Predictor",
    "Server",
    "ServerError",
    "StyleNetwork",
    "SuperResolutionNetwork",
    "Tokens",
    "TrainingError",
    "UnsupportedFormat",
    "WeightsError",
    "__version__",
    "find_server",
    "load",
}


def test_the_public_names_are_these_and_all_of_them_work():
    assert set(perceptual.__all__) == SURFACE == set(dir(perceptual))
    assert all(getattr(perceptual, name) is not None for name in SURFACE)


def test_importing_is_fast_and_leaves_torch_for_later():
    program = (
        "import time; start = time.perf_counter(); import perceptual; spent = time.perf_counter() - start;"
        "import sys; print(spent); print('torch' in sys.modules)"
    )
    runs = [subprocess.check_output([sys.executable, "-c", program], text=True).split() for _ in range(3)]
    assert min(float(spent) for spent, _ in runs) < 0.2
    assert {torch_came for _, torch_came in runs} == {"False"}


@pytest.mark.parametrize("command", ["--version", "train style --help", "status --port 1", "token --port 1"])
def test_a_command_that_computes_nothing_does_not_wait_for_torch(command):
    program = (
        "import sys; from perceptual.commands import main\n"
        f"try: main({command.split()!r})\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).splitlines()[-1] == "False"


def test_every_error_has_its_status():
    from perceptual import errors

    statuses = {name: kind.status for name, kind in vars(errors).items() if isinstance(kind, type)}
    for line in errors.__doc__.splitlines():  # the tree drawn in the docstring
        for name, status in statuses.items():
            if name in line.split():
                assert str(status) in line.split()
    assert all(any(name in line.split() for line in errors.__doc__.splitlines()) for name in statuses)
