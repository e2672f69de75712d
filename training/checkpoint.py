"""Checkpoints: the full state of a training, for exact resuming."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from perceptual.errors import TrainingError, first_line
from perceptual.files import write_atomically
from perceptual.settings import settings_of

from .settings import FREE_ON_RESUME, TrainingSettings, plain, plain_value

KEYS = ("settings", "sources", "network", "optimizers", "random", "random_cuda")


class Progress(NamedTuple):
    """How far a training has come.

    Attributes:
        iteration: Iterations done.
        seconds: Their duration, over all runs.
        machines: Names of the machines, in order, without repetitions.
        rising_from: First iteration of the learning rate's warm-up: 0, or the one from which the training was extended
            beyond its planned end.
        photos: Number of photos, which determines their order; None before the first run.
        earlier: Trainings that produced the initial weights, from their provenance, oldest first.
    """

    iteration: int = 0
    seconds: float = 0.0
    machines: tuple[str, ...] = ()
    rising_from: int = 0
    photos: int | None = None
    earlier: tuple[dict[str, Any], ...] = ()


class Unsound(TrainingError):
    """A checkpoint is damaged, or contains non-finite numbers."""


def previous(path: Path) -> Path:
    """Path of the previous checkpoint, beside the newest."""
    return path.with_stem(f"{path.stem}_previous")


def save_checkpoint(
    path: Path,
    progress: Progress,
    settings: TrainingSettings,
    sources: Mapping[str, str],
    network: nn.Module,
    optimizers: Sequence[Optimizer],
) -> None:
    """Writes the full state, and keeps the previous checkpoint if that is sound.

    Each is written atomically, so that at every moment one of them is sound. The data's position and the learning rate
    follow from the iteration.

    Args:
        path: The checkpoint.
        progress: How far the training has come.
        settings: Its settings.
        sources: SHA-256 of the input files, by description.
        network: The network being trained, on the device whose random state is saved.
        optimizers: Of the network.
    """
    device = next(network.parameters()).device
    state = {
        **progress._asdict(),
        "settings": plain(settings),
        "sources": dict(sources),
        "network": network.state_dict(),
        "optimizers": [each.state_dict() for each in optimizers],
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    if is_sound(path):
        write_atomically(previous(path), path.read_bytes())
    write_atomically(path, buffer.getvalue())


def load_checkpoint(
    path: Path,
    settings: TrainingSettings,
    sources: Mapping[str, str],
    network: nn.Module,
    optimizers: Sequence[Optimizer],
) -> tuple[Progress, str | None]:
    """Restores network, optimizers and random state in place, from the newest checkpoint that is sound.

    All processes of a distributed training restore the state of rank 0, as they draw the same random numbers.

    Returns:
        The progress; and the reason if the newest checkpoint was skipped.

    Raises:
        TrainingError: There is no checkpoint, none is sound, or it was made with other settings or files.
    """
    path, state, reason = newest_sound(path)
    refuse_other_settings(path, state["settings"], settings)
    for what, digest in state["sources"].items():
        if digest and sources[what] and sources[what] != digest:  # empty if no initial weights are mixed in
            raise TrainingError(
                f"{path} was made with another file as {what}; choose another --sample-path to begin a new run"
            )
    network.load_state_dict(state["network"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        restore(optimizer, saved)
    torch.set_rng_state(state["random"])
    device = next(network.parameters()).device
    if device.type == "cuda" and isinstance(state["random_cuda"], Tensor):
        torch.cuda.set_rng_state(state["random_cuda"], device)
    progress = Progress(**{name: state[name] for name in Progress._fields})
    as_planned = state["settings"]["iterations"] == settings.iterations
    return (progress if as_planned else progress._replace(rising_from=progress.iteration)), reason


def newest_sound(path: Path) -> tuple[Path, dict[str, Any], str | None]:
    """The newest sound checkpoint of a run: its file, its state, and the reason if a newer one was skipped.

    Raises:
        TrainingError: There is none, or the newest is of another version.
    """
    reasons = []
    for file in (path, previous(path)):
        try:
            state = read_checkpoint(file)
        except FileNotFoundError:
            continue
        except Unsound as error:
            reasons.append(str(error))
        else:
            return file, state, f"{reasons[0]}; continuing from {file}" if reasons else None
    if reasons:
        raise TrainingError("; ".join(reasons))
    raise TrainingError(f"nothing to resume: there is no {path}; leave --resume out to begin")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a checkpoint.

    Raises:
        FileNotFoundError: There is none.
        Unsound: It is damaged, or has numbers that are not finite.
        TrainingError: It is of another version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # unpickling raises many kinds
        raise Unsound(f"{path} is damaged: {first_line(error)}") from error
    if not isinstance(state, dict) or {*Progress._fields, *KEYS} - state.keys():
        raise TrainingError(
            f"{path} is not a checkpoint of this version; choose another --sample-path to begin a new run"
        )
    if not all(value.isfinite().all() for value in tensors_in([state["network"], state["optimizers"]])):
        raise Unsound(f"{path} has numbers that are not finite")
    return state


def is_sound(path: Path) -> bool:
    """Whether there is a checkpoint from which a training can go on."""
    try:
        read_checkpoint(path)
    except (FileNotFoundError, TrainingError):
        return False
    return True


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested dictionaries and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from tensors_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_in(each)


def restore(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Loads an optimizer's state, which may come from another device, in the form this optimizer uses here.

    load_state_dict alone would keep the other device's implementation (such as fused) and memory format of the
    moments. Fused implementations on a CPU ignore the memory format, and would mix up the moments of weights.
    """
    for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=True):
        if "fused" in group:
            saved["fused"] = group["fused"]
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(value)


def refuse_other_settings(path: Path, old: dict[str, Any], settings: TrainingSettings) -> None:
    """Raises TrainingError if a setting that affects the result has changed.

    A setting that is missing in the checkpoint was added later, and had its default value.
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
            f"{path} was made with other settings: {'; '.join(changed)}. Resume with the old ones, or choose "
            f"another --sample-path to begin a new run"
        )
