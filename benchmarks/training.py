"""Measures the time of an iteration of a style training, by part.

  python -m benchmarks training
  python -m benchmarks training --peer examples/fast_neural_style --batch-size 4 --size 256

Iterations are those of `perceptual train style --compile no --optimizer adam` with the default network, in float32 and,
if the machine is fast in it, in bfloat16. They are measured in turn, on the same photos, which are read and cropped in
the iteration.

--peer also measures the loop of pytorch/examples: its network, its loss network and its functions, in its order, with
the same layers of the same VGG-16. `times as fast` compares with the first row. The loss network has random weights.
Against grids, our iteration crops 7 rows and columns of every picture, 5 % of 256 × 256 pixels.
"""

import hashlib
import tempfile
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from perceptual.inference.engines import quick_in_bfloat16
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.predictor import pick_device
from perceptual.settings import parse
from perceptual_training.data import RandomCrops, batches, find_photos
from perceptual_training.machine import bfloat16
from perceptual_training.optimizers import build_optimizers
from perceptual_training.settings import StyleSettings
from perceptual_training.style import StyleTransfer

from .arguments import count
from .peer import NAME as PEER
from .peer import add_peer, peer_module
from .photos import PHOTOS
from .report import Row, Tables, show_progress
from .timing import Spread, now

PAINTING = PHOTOS.parents[1] / "training" / "styles" / "starry_night.jpg"
WARM_UP = 2  # iterations that do not count
LR = 1e-3
PARTS = ("data", "network", "losses", "backward", "optimizer")


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the benchmark's options."""
    parser.add_argument("--size", type=count, default=256, help="side of the photos, px (default: %(default)s)")
    parser.add_argument(
        "--batch-size", type=count, default=4, metavar="N", help="photos in a batch (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats", type=count, default=9, metavar="N", help="iterations that count (default: %(default)s)"
    )
    add_peer(parser)


def run(args: Namespace) -> Tables:
    """Measures every way of training."""
    return {"An iteration": measure(args.peer, args.size, args.batch_size, args.repeats)}


class Clock:
    """Adds up the seconds of the parts of an iteration."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Surrounds a part."""
        begin = now(self.device)
        yield
        self.seconds[name] += now(self.device) - begin

    @property
    def total(self) -> float:
        """Seconds of the whole iteration."""
        return sum(self.seconds.values())


Iteration = Callable[[Clock], None]


def measure(peer: Path | None, size: int, batch_size: int, repeats: int) -> list[Row]:
    """Runs the ways in turn, iteration by iteration, on the same photos with the same loss network.

    Time does not depend on its weights, so they are random, and nothing is downloaded.
    """
    device = pick_device(None)
    vgg = torchvision.models.vgg16()
    with tempfile.TemporaryDirectory() as scratch:
        folder = many_photos(Path(scratch), batch_size * (WARM_UP + repeats))
        weights = Path(scratch, "vgg16.pth")
        torch.save({name: value for name, value in vgg.state_dict().items() if name.startswith("features")}, weights)
        ways: dict[str, Iteration] = {}
        if peer:
            ways[PEER] = peers(peer, vgg, folder, size, batch_size, device)
        ways["float32"] = ours(weights, folder, size, batch_size, device, half=False)
        if quick_in_bfloat16(device):
            ways["bfloat16"] = ours(weights, folder, size, batch_size, device, half=True)
        taken: dict[str, list[Clock]] = {name: [] for name in ways}
        for number in range(WARM_UP + repeats):
            show_progress(f"iteration {number + 1} of {WARM_UP + repeats}")
            for name, iterate in ways.items():
                clock = Clock(device)
                iterate(clock)
                if number >= WARM_UP:
                    taken[name].append(clock)
    return [row(name, clocks, next(iter(taken.values())), batch_size) for name, clocks in taken.items()]


def row(name: str, clocks: list[Clock], first: list[Clock], batch_size: int) -> Row:
    """The figures of one way: of the whole iteration, against the first way, and the medians of its parts."""
    seconds = Spread.of(clock.total for clock in clocks)
    return {
        "training": name,
        "seconds": seconds,
        "images/s": batch_size / seconds.median,
        "times as fast": Spread.of_ratios((clock.total for clock in first), (clock.total for clock in clocks)),
        **{part: median(clock.seconds[part] for clock in clocks) for part in PARTS},
    }


def many_photos(scratch: Path, count: int) -> Path:
    """A folder with a subfolder of ``count`` links to the photos of the documentation."""
    photos = sorted(PHOTOS.glob("*.jpg"))
    folder = scratch / "photos" / "all"
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.jpg").symlink_to(photos[number % len(photos)])
    return folder.parent


def ours(weights: Path, folder: Path, size: int, batch_size: int, device: torch.device, *, half: bool) -> Iteration:
    """An iteration of ``perceptual train style``, which reads photos when it needs them, as the peer does."""
    settings = parse(
        StyleSettings,
        {
            "style-image": PAINTING,
            "content-dir": folder,
            "style-size": size,
            "image-size": size,
            "content-layers": ["relu2_2"],
            "style-layers": ["relu1_2", "relu2_2", "relu3_3", "relu4_3"],
            "loss-network": "vgg16",
            "loss-weights": weights,
            "loss-weights-sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "device": str(device),
        },
    )
    task = StyleTransfer(settings, device)
    network = task.network.train()
    (optimizer,) = build_optimizers(network, "adam", LR)
    photos = find_photos(folder, "all")
    stream = batches(RandomCrops(photos, task.crops, 0), batch_size, 0, len(photos) // batch_size, 0, device)
    timed = Timed(network)
    task.network = timed

    def iterate(clock: Clock) -> None:
        with clock.part("data"):
            batch, _ = next(stream)
        timed.clock = clock
        with clock.part("losses"), bfloat16(device, enabled=half):
            losses, _ = task.losses(batch)
            total = torch.stack(list(losses.values())).sum()
        clock.seconds["losses"] -= clock.seconds["network"]
        with clock.part("backward"):
            optimizer.zero_grad(set_to_none=True)
            total.backward()
        with clock.part("optimizer"):
            optimizer.step()

    return iterate


class Timed(nn.Module):
    """A network whose forward pass is timed as a separate part."""

    def __init__(self, network: StyleNetwork) -> None:
        super().__init__()
        self.network = network
        self.grain = network.grain
        self.clock = Clock(torch.device("cpu"))

    def forward(self, photos: Tensor) -> Tensor:
        """Runs the network."""
        with self.clock.part("network"):
            return self.network(photos)


def peers(peer: Path, vgg: nn.Module, folder: Path, size: int, batch_size: int, device: torch.device) -> Iteration:
    """An iteration as that of pytorch/examples: its network, its loss network, its functions, in its order."""
    utils = peer_module(peer, "utils")
    network = peer_module(peer, "transformer_net").TransformerNet().to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), LR)
    mse = nn.MSELoss()
    with patch("torchvision.models.vgg16", lambda *_, **__: vgg):  # instead of downloading one
        loss_network = peer_module(peer, "vgg").Vgg16(requires_grad=False).to(device)
    to_pixels = transforms.Lambda(lambda x: x.mul(255))
    painting = transforms.Compose([transforms.Resize((size, size)), transforms.ToTensor(), to_pixels])
    style = painting(torchvision.datasets.folder.default_loader(str(PAINTING))).repeat(batch_size, 1, 1, 1).to(device)
    with torch.no_grad():
        grams = [utils.gram_matrix(each) for each in loss_network(utils.normalize_batch(style))]
    reading = transforms.Compose(
        [transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor(), to_pixels]
    )
    stream = iter(DataLoader(ImageFolder(str(folder), reading), batch_size=batch_size))

    def iterate(clock: Clock) -> None:
        with clock.part("data"):
            batch = next(stream)[0].to(device)
        optimizer.zero_grad()
        with clock.part("network"):
            stylized = network(batch)
        with clock.part("losses"):
            found = loss_network(utils.normalize_batch(stylized))
            expected = loss_network(utils.normalize_batch(batch))
            content = mse(found.relu2_2, expected.relu2_2)
            styles = [mse(utils.gram_matrix(each), gram) for each, gram in zip(found, grams, strict=True)]
            total = 1e5 * content + 1e10 * sum(styles)
        with clock.part("backward"):
            total.backward()
        with clock.part("optimizer"):
            optimizer.step()
            total.item()  # the peer logs the losses of every iteration

    return iterate
