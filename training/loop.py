"""The training loop, the same for every task."""

import hashlib
import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from perceptual.engines import quick_in_bfloat16
from perceptual.errors import TrainingError
from perceptual.networks import ImageTransformationNetwork
from perceptual.weights import find_weights, read_metadata, save_network, write_atomically

from . import parallel
from .checkpoint import Progress, load_checkpoint, save_checkpoint
from .compilation import compiled
from .data import Crop, RandomCrops, batches, find_photos
from .loss_network import identity
from .machine import bfloat16, machine_name
from .mixing import initial_weights, mixed_with
from .optimizers import build_optimizers
from .record import Record
from .settings import TrainingSettings
from .sheets import animate
from .signals import stop_signals

WARM_UP = 50  # iterations in which the cosine schedule's learning rate rises
CONSTANT = 0.5 / 255  # a standard deviation below which a picture is of one colour


class Task(Protocol):
    """What a task adds to the loop. All of it lies on the device already."""

    crops: Crop

    @property
    def network(self) -> ImageTransformationNetwork:
        """What is trained."""

    def losses(self, photos: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted losses of a batch of photos by name, whose sum is the objective, and the network's output."""

    def sheet(self) -> Image.Image:
        """A sample sheet of the network as it is now."""

    def frame(self) -> Image.Image:
        """One photo's output as it is now, for the animation."""

    def provenance(self) -> dict[str, Any]:
        """What the weights' metadata should say of the task."""


@dataclass(frozen=True)
class Run:
    """Where a training keeps its files."""

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


def train(task: Task, settings: TrainingSettings, run: Run, device: torch.device, *, resume: bool = False) -> bool:
    """Trains a task's network and writes its weights to ``run.model``.

    Returns:
        True when done; False if SIGINT, SIGTERM or the end of ``settings.minutes`` came first, after which a
        checkpoint has been saved.

    Raises:
        TrainingError: The training cannot begin, a loss is no longer finite, or the output is of one colour. The
            last good checkpoint is kept.
    """
    begin = time.monotonic()
    deadline = math.inf if settings.minutes is None else begin + 60 * settings.minutes
    files = find_photos(settings.content_dir, settings.split)
    network = task.network.train()
    on_gpu = device.type == "cuda"
    optimizers = build_optimizers(network, settings.optimizer, settings.lr)
    before = Progress(earlier=earlier_trainings(settings))
    quick = quick_in_bfloat16(device)
    half = settings.precision == "bfloat16" or (settings.precision == "auto" and quick)
    precision = partial(bfloat16, device, enabled=half)
    initial = initial_weights(settings)
    sources = sources_of(task, settings)
    if resume:
        before = load_checkpoint(run.checkpoint, settings, sources, network, optimizers)
    start = before.iteration
    if start >= settings.iterations:
        if parallel.any_of(run.model.exists()):  # of all processes alike, before the first writes it
            raise TrainingError(f"{run.folder} is finished, with {start} iterations; to go on, raise --iterations")
        finish(run)  # which it did not come to the last time
        return True
    stream = batches(
        RandomCrops(files, task.crops, settings.seed),
        settings.batch_size,
        start,
        settings.iterations,
        settings.num_workers,
        device,
    )
    losses_of = parallel.synchronized(network, task.losses)
    recording: AbstractContextManager[Record | None] = nullcontext()
    if parallel.rank() == 0:
        recording = Record(run.folder, start, settings.iterations, settings.batch_size)
    unusable: set[Path] = set()
    recent: list[Tensor] = []  # losses since the last line of the log; those of one batch say little
    with recording as record, stop_signals() as stop:
        machine = machine_name(device)
        if parallel.world_size() > 1:
            machine = f"{parallel.world_size()} × {machine}"
        if record:
            kind = "bfloat16" if half else "float32"
            record.note(f"{len(files)} photos, {device}, {kind}; all files in {run.folder}")
            if before.photos not in (None, len(files)):
                record.note(f"before, there were {before.photos} photos: they come in another order from here on")
            if half and not quick:
                record.note("this processor has no instructions for bfloat16; --precision float32 would be quicker")
            wanted = settings.compile == "yes" or (settings.compile == "auto" and on_gpu)
            if wanted and parallel.world_size() > 1:
                record.note("of several processes, the step is not compiled")
            elif wanted:
                record.note("compiling the step; that takes a minute or two")
                ramp = torch.linspace(0, 1, settings.image_size, device=device)
                example = ramp.repeat(settings.batch_size, 3, settings.image_size, 1)
                losses_of = compiled(losses_of, network, example, precision, record.note)
        for done, (photos, bad) in enumerate(stream, start + 1):
            with precision():
                losses, output = losses_of(photos)
            terms = torch.stack(list(losses.values()))
            objective = terms.sum()
            network.zero_grad(set_to_none=True)
            objective.backward()
            lr = settings.lr * lr_factor(done - 1, settings, before.rising_from)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = lr
                optimizer.step()

            recent.append(terms.detach())
            unusable.update(bad)
            stopping = parallel.any_of(stop.is_set() or time.monotonic() >= deadline) and done < settings.iterations
            last = done == settings.iterations or stopping
            if last or any(done % step == 0 for step in (settings.log_step, settings.sample_step, settings.save_step)):
                check_health(done, parallel.mean(objective), photos, output, network, run)
                means = dict(zip(losses, parallel.mean(torch.stack(recent).mean(dim=0)).tolist(), strict=True))
            if last or done % settings.log_step == 0:
                recent.clear()
            if last:
                unusable = parallel.union(unusable)
            if record is None:  # the first process writes for all
                if stopping:
                    return False
                continue
            record.advance()
            if last or done % settings.log_step == 0:
                record.losses(done, means, lr)
            if last or done % settings.save_step == 0:
                progress = advanced(before, done, time.monotonic() - begin, machine, len(files))
                facts = {
                    "iterations": done,
                    "training": {"seconds": progress.seconds, "machine": "; ".join(progress.machines)},
                    "photos": len(files),
                    "losses": means,
                    **({"earlier_trainings": progress.earlier} if progress.earlier else {}),
                }
                with mixed_with(network, initial, settings.initial_share):
                    save_network(run.latest, network, {**task.provenance(), **facts})
                # After the weights: where a checkpoint is, they are as far at least.
                save_checkpoint(run.checkpoint, progress, settings, sources, network, optimizers)
            if last or done % settings.sample_step == 0:
                with mixed_with(network, initial, settings.initial_share):
                    record.pictures(done, task.sheet(), task.frame())
            if last:
                record.unusable(unusable)
            if stopping:
                record.note(f"stopped after {done} of {settings.iterations} iterations; go on with --resume")
                return False
    finish(run)
    return True


def finish(run: Run) -> None:
    """Writes what there is at the end: the weights, then the animation."""
    if parallel.rank() == 0:
        write_atomically(run.model, run.latest.read_bytes())
        animate(sorted((run.folder / "evolution").glob("*.png")), run.folder / "evolution.gif")


def sources_of(task: Task, settings: TrainingSettings) -> dict[str, str]:
    """Digests of the files that decide what comes out, by what they are: a path may hold another some day."""
    told = task.provenance()
    initial = find_weights(settings.initial_weights) if settings.initial_weights and settings.initial_share else None
    return {
        "the painting": str(told.get("style_image_sha256")),
        "the loss network": identity(str(told.get("loss_network"))),
        "the initial weights": hashlib.sha256(initial.read_bytes()).hexdigest() if initial else "",
    }


def earlier_trainings(settings: TrainingSettings) -> tuple[dict[str, Any], ...]:
    """The trainings that made the weights which a training begins with, as these tell, the oldest first.

    Raises:
        WeightsError: They cannot be read.
    """
    if not settings.initial_weights:
        return ()
    told = read_metadata(find_weights(settings.initial_weights))["provenance"]
    known = {**told.get("recipe", {}), **told.get("training", {}), **told}
    facts = ("name", "iterations", "batch_size", "optimizer", "lr", "photos", "seconds", "machine")
    return (*told.get("earlier_trainings", ()), {fact: known[fact] for fact in facts if fact in known})


def advanced(before: Progress, iteration: int, seconds: float, machine: str, photos: int) -> Progress:
    """How far a training has come that went on from ``before`` for some time on a machine."""
    machines = tuple(dict.fromkeys([*before.machines, machine]))
    total = round(before.seconds + seconds, 1)
    return before._replace(iteration=iteration, seconds=total, machines=machines, photos=photos)


def lr_factor(done: int, settings: TrainingSettings, rising_from: int = 0) -> float:
    """The learning rate after ``done`` iterations, relative to its peak.

    The cosine schedule rises first, to where it then falls from: at once on a high rate, a training that went on after
    its end, where the rate was next to nothing, explodes.
    """
    if settings.lr_schedule == "constant":
        return 1.0
    return min((done - rising_from + 1) / WARM_UP, (1 + math.cos(math.pi * min(1, done / settings.iterations))) / 2)


def check_health(done: int, objective: Tensor, photos: Tensor, output: Tensor, network: nn.Module, run: Run) -> None:
    """Raises TrainingError if the objective or a weight is not finite, or all outputs are of one colour."""
    kept = f"The last good checkpoint is {run.checkpoint}" if run.checkpoint.exists() else "There is no checkpoint yet"
    advice = f"{kept}; try a lower --lr, lower weights of the losses, or --precision float32"
    if not torch.isfinite(objective) or not all(torch.isfinite(p).all() for p in network.parameters()):
        raise TrainingError(f"the losses are no longer finite at iteration {done}. {advice}")
    if not parallel.any_of(is_varied(output) or not is_varied(photos)):  # of flat photos, outputs may be flat
        raise TrainingError(f"the network's output is of one colour at iteration {done}. {advice}")


def is_varied(images: Tensor) -> bool:
    """Whether any image of a batch N×3×H×W is of more than one colour."""
    return bool(images.detach().float().std(dim=(2, 3)).max() >= CONSTANT)
