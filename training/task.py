"""Common parts of the tasks: the files of a run, the initial network, sample photos, and provenance."""

import platform
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
import torchvision
from torch import Tensor

import perceptual
from perceptual.errors import InputError, InvalidOption, TrainingError
from perceptual.inference.grain import with_grain
from perceptual.inference.metadata import OWN
from perceptual.inference.networks import ImageTransformationNetwork
from perceptual.inference.predictor import pick_device
from perceptual.naming import checked_length

from . import parallel
from .data import find_photos, image_files, spread
from .loop import Run, photos_for
from .mixing import load_initial, state_for
from .pictures import load_square
from .settings import TrainingSettings

N = TypeVar("N", bound=ImageTransformationNetwork)

FRAME_SIZE = 256  # pixels; side of a sample


def prepare(settings: TrainingSettings, name: str, *, resume: bool) -> tuple[Run, torch.device]:
    """Seeds the random numbers; returns the run of that name and its device.

    Errors are raised here, before the loss network is downloaded.

    Raises:
        InputError: The name is too long.
        TrainingError: A new run would overwrite another's files, which another process may be writing, or its files
            cannot be written; or there are too few photos.
    """
    folder = settings.sample_path or Path("runs", name)
    run = Run(name, folder, model_file(settings, name))
    for each in (name, run.model.stem):
        checked_length(each, "choose another --name")
    if run.begun and not resume:
        raise TrainingError(
            f"{run.folder} has a run already: continue it with --resume, or choose another --sample-path"
        )
    if run.model.exists() and not resume:
        raise TrainingError(f"{run.model} exists already: choose another --name or --model-path, or move the file")
    torch.manual_seed(settings.seed)
    device = parallel.join(pick_device(settings.device), settings.batch_size)
    photos_for(settings)
    with run.held():
        return run, device


def model_file(settings: TrainingSettings, name: str) -> Path:
    """The weights file that a training of a name writes."""
    return settings.model_path or OWN / f"{name}.safetensors"


def build_network(
    cls: type[N], settings: TrainingSettings, names: Sequence[str] = (), *, keeps_initial: bool = False, **changes: Any
) -> N:
    """The preset's network, changed by arguments that are not None; with random weights or ``initial_weights``.

    Args:
        cls: Its class.
        settings: The training's.
        names: Of its styles, as for :func:`.mixing.state_for`.
        keeps_initial: Whether the weights that are written hold the initial ones too.
        changes: To the preset.

    Raises:
        WeightsError: The file cannot be read.
        InvalidOption: It holds a network of other layers, or one that fits but for its last layer although
            ``initial_share`` or ``keeps_initial`` needs it whole; or ``initial_share`` is set without
            ``initial_weights``.
    """
    if settings.initial_share and not settings.initial_weights:
        raise InvalidOption("initial-share: needs --initial-weights")
    changes = {"init_features": settings.init_features, "num_residuals": settings.num_residuals, **changes}
    chosen = {name: value for name, value in changes.items() if value is not None}
    network = cls(**{**cls.presets[settings.preset], **chosen})
    if settings.initial_weights:
        initial = load_initial(settings.initial_weights)
        if not fits(initial, network):
            raise InvalidOption(
                f"initial-weights: {settings.initial_weights} is another network ({initial.task} {initial.config}); "
                f"this training's is {network.task} {network.config}"
            )
        state = state_for(network, settings.initial_weights, initial, names)
        own = network.state_dict()
        fitting = {name: value for name, value in state.items() if value.shape == own[name].shape}
        if len(fitting) < len(own) and (settings.initial_share or keeps_initial):
            raise InvalidOption(
                f"initial-weights: {settings.initial_weights} enlarges by another factor, so its last layer does not "
                f"fit; initial-share and blend need all layers"
            )
        network.load_state_dict({**own, **fitting})
    return network


def fits(initial: ImageTransformationNetwork, network: ImageTransformationNetwork) -> bool:
    """Whether a network can start from the weights of another: of the same layers, whatever the number of styles.

    Networks that end in a pixel shuffle may differ in their factor; then the last layer is not taken over.
    """
    return (initial.task, layers(initial)) == (network.task, layers(network))


def layers(network: ImageTransformationNetwork) -> dict[str, Any]:
    """A network's configuration without styles, sizes and grain, and without the factor of a pixel shuffle."""
    free = {"styles", "sizes", "grain"} | ({"scale"} if network.config.get("upsampling") == "shuffle" else set())
    return {name: value for name, value in network.config.items() if name not in free}


def randomly_cropped(period: int, *images: Tensor) -> list[Tensor]:
    """Crops several images N×3×H×W at the same random offset, by ``period`` − 1 rows and columns in total.

    The loss network pools pixels 2×2 several times. If it always pooled the same pixels, a network could learn a grid
    with that period, which does not raise the loss but looks like detail.
    """
    first = torch.randint(period, (2,), device=images[0].device)
    # The numbers stay on the device and the sizes constant, for compiled steps.
    rows, columns = (torch.arange(side - period + 1, device=first.device) for side in images[0].shape[2:])
    return [each.index_select(2, first[0] + rows).index_select(3, first[1] + columns) for each in images]


@torch.no_grad()
def run_finished(network: ImageTransformationNetwork, photos: Tensor, *styles: Tensor) -> Tensor:
    """The network's outputs for photos as after the training: in evaluation mode, in float32, one by one.

    Args:
        network: In training mode, to which it is set back.
        photos: N×3×H×W in [0, 1].
        styles: 1×P each; every photo is run in each of them, or in the network's only style if none is given.
    """
    network.eval()
    conditions: list[tuple[Tensor, ...]] = [(style,) for style in styles] or [()]
    grained = with_grain(photos, [network.grain] * len(photos))
    outputs = torch.cat([network(photo[None], *style) for photo in grained for style in conditions])
    network.train()
    return outputs


def provenance(settings: TrainingSettings, **facts: Any) -> dict[str, Any]:
    """The provenance of weights: given facts, and those of every training; paths are reduced to file names."""
    recipe = {
        key: value.name if isinstance(value, Path) else value
        for key, value in vars(settings).items()
        if value is not None and key != "minutes"  # which may differ from run to run
    }
    return {
        **facts,
        "licence": settings.licence,
        "recipe": recipe,
        "versions": {
            "torchserve-perceptual": perceptual.__version__,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "python": platform.python_version(),
        },
    }


def sample_photos(settings: TrainingSettings, first: Path | None = None) -> Tensor:
    """The photos of the sample sheets, N×3×256×256 in [0, 1]; if possible, none that is used in training.

    Args:
        settings: Settings, with the folder and the number of photos.
        first: A photo that must come first.
    """
    others = [split for split in ("validation", "test", "train") if split != settings.split]
    files: list[Path] = []
    image_files(settings.content_dir, "--content-dir")  # raises an error if the folder has none
    for split in (*others, settings.split):
        with suppress(TrainingError):
            files = files or find_photos(settings.content_dir, split)
    tried = dict.fromkeys([*spread(files, settings.samples), *files])  # others in place of those that cannot be read
    photos = [load_square(first, FRAME_SIZE)] if first else []
    reason: InputError | None = None
    for file in tried:
        if len(photos) < settings.samples:
            try:
                photos.append(load_square(file, FRAME_SIZE))
            except InputError as error:  # the training itself reports the unreadable files
                reason = error
    if not photos:
        raise TrainingError(
            f"none of {len(tried)} photos tried in {settings.content_dir} can be read; the last: {reason}"
        )
    return torch.cat(photos)
