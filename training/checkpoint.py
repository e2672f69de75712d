"""All that a training needs to go on as if it had never stopped."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from perceptual.errors import TrainingError
from perceptual.settings import settings_of
from perceptual.weights import write_atomically

from .settings import FREE_ON_RESUME, TrainingSettings, plain, plain_value


class Progress(NamedTuple):
    """How far a training has come.

    Attributes:
        iteration: Iterations done.
        seconds: Spent on them in all runs together; None if a checkpoint from before this was kept does not tell.
        machines: What they ran on, in order, each once.
        rising_from: The iteration at which the learning rate began to rise: 0, or where a training went on that was
            meant to be shorter.
    """

    iteration: int = 0
    seconds: float | None = 0.0
    machines: tuple[str, ...] = ()
    rising_from: int = 0


def save_checkpoint(
    path: Path,
    progress: Progress,
    settings: TrainingSettings,
    network: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler,
) -> None:
    """Writes the whole state, atomically. The data's position follows from the iteration."""
    state = {
        **progress._asdict(),
        "settings": plain(settings),
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(
    path: Path, settings: TrainingSettings, network: nn.Module, optimizer: Optimizer, scheduler: LRScheduler
) -> Progress:
    """Restores network, optimizer, scheduler and random state in place; returns how far they had come.

    Raises:
        TrainingError: There is no checkpoint, it is damaged, or it was made with other settings.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"nothing to resume: there is no {path}; leave --resume out to begin") from error
    except Exception as error:  # torch.load raises whatever unpickling does
        raise TrainingError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    refuse_other_settings(path, state["settings"], settings)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    torch.set_rng_state(state["random"])
    if torch.cuda.is_available() and len(state["random_cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["random_cuda"])
    done = state["iteration"]
    as_meant = state["settings"]["iterations"] == settings.iterations
    rising_from = state.get("rising_from", 0) if as_meant else done
    return Progress(done, state.get("seconds"), tuple(state.get("machines", ())), rising_from)


def refuse_other_settings(path: Path, old: dict[str, Any], settings: TrainingSettings) -> None:
    """Raises TrainingError if a setting that decides what is computed has changed.

    A setting that the checkpoint does not know came later; what it had before is its default.
    """
    new = plain(settings)
    old = {each.name: plain_value(each.default) for each in settings_of(type(settings))} | old
    changed = [
        f"{name.replace('_', '-')} was {old[name]} and is now {new[name]}"
        for name in new
        if name not in FREE_ON_RESUME and old[name] != new[name]
    ]
    if changed:
        raise TrainingError(
            f"{path} was made with other settings: {'; '.join(changed)}. Resume with the old ones, or name another "
            f"--sample-path to begin anew"
        )
