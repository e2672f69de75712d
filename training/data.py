"""Photos for training: finds them, splits them by name, and crops them at random but reproducibly."""

import hashlib
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from perceptual.errors import InputError, InvalidImage, TrainingError
from perceptual.files import EXTENSIONS, images_below
from perceptual.inference import images
from perceptual.inference.codecs import formats

from . import parallel
from .splits import SPLITS, percentile

Sample = tuple[Tensor, list[Path]]
Read = Callable[[Path], Tensor]
Crop = Callable[[Tensor], Tensor]


def find_photos(folder: Path, split: str, option: str = "--content-dir") -> list[Path]:
    """Image files of a split, anywhere below a folder, sorted by path.

    A file's split depends on its name alone, so adding or removing other files does not change it.

    Raises:
        TrainingError: No such folder, no images in it, or none in this split.
    """
    files = image_files(folder, option)
    chosen = [path for path in files if percentile(path.name) in SPLITS[split]]
    if not chosen:
        raise TrainingError(
            f"none of the {len(files)} images in {folder} is of the {split} split; choose another --split"
        )
    return chosen


def image_files(folder: Path, option: str) -> list[Path]:
    """All image files anywhere below a folder, sorted by path. Raises TrainingError if there are none."""
    if not folder.is_dir():
        raise TrainingError(f"there is no folder {folder}; name a folder of photos with {option}")
    if not (files := images_below(folder)):
        raise TrainingError(f"no images in {folder} or the folders below it; looked for {' '.join(EXTENSIONS)}")
    return files


def spread(files: Sequence[Path], count: int) -> list[Path]:
    """``count`` evenly spaced files, or all if there are fewer."""
    count = min(count, len(files))
    return [files[i * len(files) // count] for i in range(count)]


def read_photo(file: Path) -> Tensor:
    """A photo, uint8 3×H×W. Raises InputError or OSError."""
    return images.decode(file.read_bytes()).opaque()


def keeping(device: torch.device) -> Read:
    """:func:`read_photo` with a cache on the GPU: each photo is decoded once."""
    return cache(lambda file: read_photo(file).to(device))


def fit_on(device: torch.device, files: Sequence[Path]) -> bool:
    """Whether photos fit into half of a GPU's free memory, estimated from a sample; the rest is for the training."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return mean_size(spread(files, 32)) * len(files) < free / 2


def mean_size(files: Sequence[Path]) -> float:
    """Mean size of a decoded photo in bytes, over those that can be opened; infinity if none can."""
    sizes = []
    for file in files:
        with suppress(InputError, OSError):  # the training reports unusable files
            sizes.append(3 * math.prod(formats.read(file.read_bytes()).size))  # decodes nothing
    return fmean(sizes) if sizes else math.inf


class RandomCrops(Dataset[Sample]):
    """An endless sequence of random crops: epoch after epoch, each in a new order.

    Sample ``i`` depends only on ``seed`` and ``i``, not on the workers or on earlier samples. So a training can be
    resumed exactly: the position is the only state.

    Args:
        files: Image files.
        crop: Returns a crop of a photo, both uint8 3×H×W, with the CPU's random numbers; raises InputError if the photo
            cannot be cropped.
        seed: Any number.
        read: Returns a photo; raises InputError or OSError if it cannot be read.
    """

    def __init__(self, files: Sequence[Path], crop: Crop, seed: int, read: Read = read_photo) -> None:
        self.files = list(files)
        self.crop = crop
        self.seed = seed
        self.read = read

    def __getitem__(self, position: int) -> Sample:
        """A crop, uint8 3×size×size, and the unusable files that were skipped before it."""
        epoch, place = divmod(position, len(self.files))
        order = epoch_order(self.seed, epoch, len(self.files))
        bad: list[Path] = []
        for step in range(len(self.files)):
            file = self.files[order[(place + step) % len(order)]]
            try:
                photo = self.read(file)
                with torch.random.fork_rng(devices=[]):
                    torch.default_generator.manual_seed(mixed_seed(self.seed, position))
                    return self.crop(photo), bad
            except (InputError, OSError) as error:
                bad.append(file)
                reason = error
        raise TrainingError(f"none of the {len(bad)} image files can be used; the last is {bad[-1]}: {reason}")


def resized_crops(size: int) -> Crop:
    """Random crops of at least a third of a photo's area, resized to ``size`` × ``size`` pixels, flipped at random."""
    return v2.Compose([v2.RandomResizedCrop(size, (0.35, 1.0), antialias=True), v2.RandomHorizontalFlip()])


def plain_crops(size: int) -> Crop:
    """Random crops of ``size`` × ``size`` pixels, not resized, in one of a square's eight orientations.

    This is the augmentation of Lim et al. 2017 (https://arxiv.org/abs/1707.02921); enlarging edges does not depend on
    their orientation.
    """
    transform = v2.Compose([v2.RandomCrop(size), v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()])

    def oriented(photo: Tensor) -> Tensor:
        height, width = photo.shape[1:]
        if min(height, width) < size:
            raise InvalidImage(f"{width}×{height} pixels are too few for a crop of {size}×{size}")
        crop = transform(photo)
        return crop.mT if torch.rand(()) < 0.5 else crop

    return oriented


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, count: int) -> list[int]:
    """The order of the files in an epoch."""
    generator = torch.Generator().manual_seed(mixed_seed(seed, -1 - epoch))
    return torch.randperm(count, generator=generator).tolist()


def mixed_seed(*parts: int) -> int:
    """A 63-bit seed from several numbers; nearby ones give unrelated seeds."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def batches(
    dataset: RandomCrops, batch_size: int, start: int, stop: int, workers: int, device: torch.device
) -> Iterator[Sample]:
    """Batches ``start`` to ``stop`` of a dataset, as from :func:`load`.

    In a distributed training each process gets its part of every batch.
    """
    parts = [parallel.part(range(i * batch_size, (i + 1) * batch_size)) for i in range(start, stop)]
    return load(dataset, parts, workers, device)


def load(
    dataset: RandomCrops, positions: Sequence[Sequence[int]], workers: int, device: torch.device
) -> Iterator[Sample]:
    """Batches of the samples at given positions: float N×3×H×W in [0, 1] on the device, with unusable files."""
    if fit_on(device, dataset.files):  # then workers have nothing to decode
        dataset, workers = RandomCrops(dataset.files, dataset.crop, dataset.seed, keeping(device)), 0
    loader = DataLoader(
        ErrorsAsValues(dataset),
        batch_sampler=[list(each) for each in positions],
        num_workers=workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda" and workers > 0,
        generator=torch.Generator(),  # for its workers' seeds; using the global one would make resuming inexact
    )
    with signals_left_to_this_process():
        loaded = iter(loader)
    for batch in loaded:
        if isinstance(batch, TrainingError):
            raise batch
        crops, bad = batch
        yield crops.to(device, non_blocking=True).float() / 255, bad


class ErrorsAsValues(Dataset[Sample | TrainingError]):
    """A dataset that returns its errors.

    An exception raised in a worker would be shown with the worker's traceback, and the workers would not end.
    """

    def __init__(self, dataset: RandomCrops) -> None:
        self.dataset = dataset

    def __getitem__(self, position: int) -> Sample | TrainingError:
        """A sample, or the error."""
        try:
            return self.dataset[position]
        except TrainingError as error:
            return error


def collate(samples: Sequence[Sample | TrainingError]) -> Sample | TrainingError:
    """Stacks the crops and joins the lists of unusable files, unless there is an error among them."""
    crops, unusable = [], []
    for sample in samples:
        if isinstance(sample, TrainingError):
            return sample
        crops.append(sample[0])
        unusable += sample[1]
    return torch.stack(crops), unusable


@contextmanager
def signals_left_to_this_process() -> Iterator[None]:
    """Blocks SIGINT and SIGTERM in processes that start inside: this process saves a checkpoint first, then ends them.

    The signals must be blocked from the start, as Ctrl-C reaches the whole process group, also processes that are still
    starting.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
