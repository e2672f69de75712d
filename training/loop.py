"""The training loop, the same for every task."""

import hashlib
import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from perceptual.errors import TrainingError
from perceptual.files import remove_leftovers, write_atomically
from perceptual.inference.engines import quick_in_bfloat16
from perceptual.inference.metadata import find_weights, read_metadata
from perceptual.inference.networks import ImageTransformationNetwork
from perceptual.signals import stop_signals

from . import parallel
from .checkpoint import Progress, load_checkpoint, newest_sound, previous, save_checkpoint
from .compilation import compiled
from .data import Crop, RandomCrops, Sample, batches, find_photos
from .locks import locked
from .loss_network import identity
from .machine import bfloat16, machine_name
from .mixing import initial_weights, mixed_with
from .optimizers import build_optimizers
from .record import Record
from .settings import TrainingSettings
from .sheets import animate

WARM_UP = 50  # iterations in which the cosine schedule's learning rate rises
CONSTANT = 0.5 / 255  # a standard deviation below which a picture is of one colour


class Task(Protocol):
    """The task-specific part of a training. Its tensors are on the training's device."""

    crops: Crop

    @property
    def network(self) -> ImageTransformationNetwork:
        """The network being trained."""

    def losses(self, photos: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted losses of a batch of photos by name, whose sum is the objective, and the network's output."""

    def sheet(self) -> Image.Image:
        """A sample sheet of the current network."""

    def figures(self) -> dict[str, float]:
        """Figures for the latest sheet, by name."""

    def frame(self) -> Image.Image:
        """The network's current output for one photo, for the animation."""

    def provenance(self) -> dict[str, Any]:
        """The task's part of the weights' provenance."""

    def save(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Writes the weights, with the task's provenance and facts of the training."""


@dataclass(frozen=True)
class Run:
    """The name and the files of a training."""

    name: str
    folder: Path
    model: Path

    @property
    def checkpoint(self) -> Path:
        """The state to resume from."""
        return self.folder / "checkpoint.pt"

    @property
    def latest(self) -> Path:
        """The network as of the last checkpoint, usable at any time."""
        return self.folder / f"{self.name}.safetensors"

    @property
    def begun(self) -> bool:
        """Whether there is a checkpoint."""
        return self.checkpoint.exists() or previous(self.checkpoint).exists()

    def has_done(self, iterations: int) -> bool:
        """Whether there are weights after that many iterations at least. Raises WeightsError if they cannot be read."""
        if not self.model.exists():
            return False
        done: int = read_metadata(self.model)["provenance"].get("iterations", 0)  # imported weights do not tell
        return done >= iterations

    def publish(self) -> None:
        """Writes the network as of the last checkpoint to ``model``."""
        write_atomically(self.model, self.latest.read_bytes())

    @contextmanager
    def held(self) -> Iterator[None]:
        """Locks the run's files for the length of a block, and removes temporary files of killed processes.

        Raises:
            TrainingError: Another training holds them, or they cannot be written.
        """
        if parallel.rank() > 0:  # only rank 0 writes
            yield
            return
        with locked(self.folder / "run", "--sample-path"), locked(self.model, "--model-path"):
            for file in (self.checkpoint, previous(self.checkpoint), self.latest, self.model):
                remove_leftovers(file)
            yield


def train(task: Task, settings: TrainingSettings, run: Run, device: torch.device, *, resume: bool = False) -> bool:
    """Trains a task's network and writes its weights to ``run.model``.

    Returns:
        True if all iterations are done; False if SIGINT, SIGTERM or the end of ``settings.minutes`` stopped it early.
        Then a checkpoint and the current weights have been saved.

    Raises:
        TrainingError: The training cannot begin, for example because there are fewer photos than in a batch, or because
            another process writes to the same files; or a loss is no longer finite, or the output is of one colour. The
            last good checkpoint is kept.
        OSError: A file cannot be written, as on a full disk; names its path.
    """
    with run.held():
        training = Training(task, settings, run, device)
        if resume:
            training.resume()
        start = training.before.iteration
        if start < settings.iterations:
            with training.recording() as record, stop_signals() as stop:
                training.begin(record)
                if not training.iterate(record, stop):
                    return False
        elif parallel.any_of(run.has_done(settings.iterations)):  # of all processes alike, before the first writes it
            raise TrainingError(f"{run.folder} is finished, with {start} iterations; to continue, raise --iterations")
        finish(run)
        return True


def photos_for(settings: TrainingSettings) -> list[Path]:
    """The photos to train on. Raises TrainingError if they are fewer than a batch."""
    files = find_photos(settings.content_dir, settings.split)
    if len(files) < settings.batch_size:
        raise TrainingError(
            f"{len(files)} photos of the {settings.split} split in {settings.content_dir} are fewer than a "
            f"batch of {settings.batch_size}: add photos, or lower --batch-size"
        )
    return files


class Training:
    """One run of a training, with its state and the progress of earlier runs.

    A method's argument ``record`` is None in all processes except rank 0, which writes for all.
    """

    def __init__(self, task: Task, settings: TrainingSettings, run: Run, device: torch.device) -> None:
        self.started = time.monotonic()
        if settings.initial_weights:
            settings = replace(settings, initial_weights=find_weights(settings.initial_weights, run.model))
        self.task = task
        self.settings = settings
        self.run = run
        self.device = device
        self.files = photos_for(settings)
        self.network = task.network.train()
        self.optimizers = build_optimizers(self.network, settings.optimizer, settings.lr)
        self.before = Progress(earlier=earlier_trainings(settings))
        self.skip_reason: str | None = None  # why the newest checkpoint was skipped
        self.quick = quick_in_bfloat16(device)
        self.half = settings.precision == "bfloat16" or (settings.precision == "auto" and self.quick)
        self.precision = partial(bfloat16, device, enabled=self.half)
        names = [each["name"] for each in task.provenance().get("styles", [])]
        self.initial = initial_weights(settings, self.network, names)
        self.sources = sources_of(task, settings)
        self.losses_of = parallel.synchronized(self.network, task.losses)
        self.unusable: set[Path] = set()
        self.recent: list[Tensor] = []  # losses since the last line of the log, which has their mean

    def resume(self) -> None:
        """Restores the state from the checkpoint."""
        self.before, self.skip_reason = load_checkpoint(
            self.run.checkpoint, self.settings, self.sources, self.network, self.optimizers
        )

    def recording(self) -> AbstractContextManager[Record | None]:
        """Opens the record, in the process that writes."""
        if parallel.rank() > 0:
            return nullcontext()
        settings = self.settings
        return Record(self.run.folder, self.before.iteration, settings.iterations, settings.batch_size)

    def begin(self, record: Record | None) -> None:
        """Logs the data, device and precision, and compiles the step if the settings ask for it."""
        if record is None:
            return
        kind = "bfloat16" if self.half else "float32"
        if self.skip_reason:
            record.note(self.skip_reason)
        record.note(f"{len(self.files)} photos, {self.device}, {kind}; all files in {self.run.folder}")
        if self.before.photos not in (None, len(self.files)):
            record.note(f"there were {self.before.photos} photos before: from here on, their order is different")
        if self.half and not self.quick:
            record.note("this processor has no instructions for bfloat16; --precision float32 would be faster")
        settings = self.settings
        if settings.compile == "no" or (settings.compile == "auto" and self.device.type != "cuda"):
            return
        if parallel.world_size() > 1:
            record.note("the step is not compiled in a training of several processes")
            return
        record.note("compiling the step; that takes a minute or two")
        ramp = torch.linspace(0, 1, settings.image_size, device=self.device)
        example = ramp.repeat(settings.batch_size, 3, settings.image_size, 1)
        self.losses_of = compiled(self.losses_of, self.network, example, self.precision, record.note)

    def iterate(self, record: Record | None, stop: threading.Event) -> bool:
        """Trains until all iterations are done, a signal arrives or the time is over; returns whether all are done."""
        settings = self.settings
        deadline = math.inf if settings.minutes is None else self.started + 60 * settings.minutes
        for done, (photos, unusable) in enumerate(self.batches(), self.before.iteration + 1):
            losses, output = self.step(done, photos)
            self.unusable.update(unusable)
            stopped = done < settings.iterations and parallel.any_of(stop.is_set() or time.monotonic() >= deadline)
            end = done == settings.iterations
            last = stopped or end
            log, save = (last or done % step == 0 for step in (settings.log_step, settings.save_step))
            sample = end or done % settings.sample_step == 0  # not after a stop, as it takes minutes with many styles
            if log or save or sample:
                objective = parallel.mean(torch.stack(list(losses.values())).sum())
                check_health(done, objective, photos, output, self.network, self.run)
                means = dict(zip(losses, parallel.mean(torch.stack(self.recent).mean(dim=0)).tolist(), strict=True))
            if log:
                self.recent.clear()
            if last:
                self.unusable = parallel.union(self.unusable)
            if record:
                record.advance()
                if log:
                    record.losses(done, means, self.lr(done))
                if save:
                    self.save(done, means)
                if sample:
                    self.write_samples(record, done)
                if last:
                    record.unusable(self.unusable)
                if stopped:
                    self.run.publish()
                    record.note(
                        f"stopped after {done} of {settings.iterations} iterations; continue with --resume. "
                        f"The current weights are in {self.run.model}"
                    )
            if stopped:
                return False
        return True

    def write_samples(self, record: Record, done: int) -> None:
        """Writes sample pictures and their figures, of the weights as they would be saved."""
        with mixed_with(self.network, self.initial, self.settings.initial_share):
            record.pictures(done, self.task.sheet(), self.task.frame())
        record.figures(done, self.task.figures())

    def batches(self) -> Iterator[Sample]:
        """Photos and unusable files, batch after batch, up to the last iteration."""
        settings = self.settings
        return batches(
            RandomCrops(self.files, self.task.crops, settings.seed),
            settings.batch_size,
            self.before.iteration,
            settings.iterations,
            settings.num_workers,
            self.device,
        )

    def step(self, done: int, photos: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Runs iteration ``done``; returns the losses and the network's output before the update."""
        with self.precision():
            losses, output = self.losses_of(photos)
        terms = torch.stack(list(losses.values()))
        self.network.zero_grad(set_to_none=True)
        terms.sum().backward()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.lr(done) * group.get("rate", 1)
            optimizer.step()
        self.recent.append(terms.detach())
        return losses, output

    def lr(self, done: int) -> float:
        """The learning rate of iteration ``done``."""
        return self.settings.lr * lr_factor(done - 1, self.settings, self.before.rising_from)

    def save(self, done: int, losses: dict[str, float]) -> None:
        """Writes the weights, with their provenance, and the checkpoint."""
        progress = self.progress(done)
        facts = {
            "iterations": done,
            "training": {"seconds": progress.seconds, "machine": "; ".join(progress.machines)},
            "photos": progress.photos,
            "losses": losses,
            **({"earlier_trainings": progress.earlier} if progress.earlier else {}),
        }
        with mixed_with(self.network, self.initial, self.settings.initial_share):
            self.task.save(self.run.latest, facts)
        # After the weights, so that these are never older than the checkpoint.
        save_checkpoint(self.run.checkpoint, progress, self.settings, self.sources, self.network, self.optimizers)

    def progress(self, done: int) -> Progress:
        """The progress, over this run and earlier ones."""
        machine = machine_name(self.device)
        if parallel.world_size() > 1:
            machine = f"{parallel.world_size()} × {machine}"
        return self.before._replace(
            iteration=done,
            seconds=round(self.before.seconds + time.monotonic() - self.started, 1),
            machines=tuple(dict.fromkeys([*self.before.machines, machine])),
            photos=len(self.files),
        )


def finish(run: Run) -> None:
    """Writes the final files: the animation, then the weights, with which the run is finished."""
    if parallel.rank() == 0:
        animate(sorted((run.folder / "evolution").glob("*.png")), run.folder / "evolution.gif")
        run.publish()


def sources_of(task: Task, settings: TrainingSettings) -> dict[str, str]:
    """SHA-256 of the input files by description, to detect on resume that a file has changed."""
    facts = task.provenance()
    initial = settings.initial_weights if settings.initial_share else None
    return {
        "the paintings" if "styles" in facts else "the painting": str(facts.get("style_image_sha256")),
        "the trunk": str(facts.get("trunk", "")),
        "the teacher": str(facts.get("teacher", "none")),
        "the loss network": identity(str(facts.get("loss_network"))),
        "the initial weights": hashlib.sha256(initial.read_bytes()).hexdigest() if initial else "",
    }


def earlier_trainings(settings: TrainingSettings) -> tuple[dict[str, Any], ...]:
    """The trainings that produced the initial weights, from their provenance, oldest first.

    Raises:
        WeightsError: They cannot be read.
    """
    if not settings.initial_weights:
        return ()
    provenance = read_metadata(settings.initial_weights)["provenance"]
    known = {**provenance.get("recipe", {}), **provenance.get("training", {}), **provenance}
    facts = ("name", "iterations", "batch_size", "optimizer", "lr", "photos", "seconds", "machine")
    return (*provenance.get("earlier_trainings", ()), {fact: known[fact] for fact in facts if fact in known})


def lr_factor(done: int, settings: TrainingSettings, rising_from: int = 0) -> float:
    """The learning rate after ``done`` iterations, relative to its peak.

    The cosine schedule warms up for :data:`WARM_UP` iterations first. Without a warm-up, a training that is extended
    after its end, where the rate was almost 0, would diverge at the suddenly high rate.
    """
    if settings.lr_schedule == "constant":
        return 1.0
    return min((done - rising_from + 1) / WARM_UP, (1 + math.cos(math.pi * min(1, done / settings.iterations))) / 2)


def check_health(done: int, objective: Tensor, photos: Tensor, output: Tensor, network: nn.Module, run: Run) -> None:
    """Raises TrainingError if the objective or a weight is not finite, or all outputs are of one colour."""
    if not torch.isfinite(objective) or not all(torch.isfinite(p).all() for p in network.parameters()):
        raise TrainingError(f"the losses are no longer finite at iteration {done}. {advice(run)}")
    if not parallel.any_of(
        is_varied(output) or not is_varied(photos)
    ):  # outputs for photos of one colour may be of one colour
        raise TrainingError(f"the network's output is of one colour at iteration {done}. {advice(run)}")


def advice(run: Run) -> str:
    """What to do after a failed training."""
    try:
        kept = f"The last good checkpoint is {newest_sound(run.checkpoint)[0]}, from which --resume continues"
    except TrainingError:
        kept = "There is no good checkpoint yet"
    return f"{kept}; try a lower --lr, lower weights of the losses, or --precision float32"


def is_varied(images: Tensor) -> bool:
    """Whether any image of a batch N×3×H×W is of more than one colour."""
    return bool(images.detach().float().std(dim=(2, 3)).max() >= CONSTANT)
