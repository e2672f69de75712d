"""Settings of trainings: command-line options, keys of a recipe, and their defaults, all in one place."""

import sys
from dataclasses import MISSING, asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceptual.errors import InvalidOption, did_you_mean
from perceptual.options import SCALES
from perceptual.settings import (
    Choice,
    FilePath,
    Integer,
    Number,
    OneOf,
    Several,
    Text,
    parse_one,
    setting,
    settings_of,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPES = Path(__file__).parent / "recipes"
DEGRADATIONS = ("mixed", "paper", "bicubic")
DATA, NETWORK, LOSSES, OPTIMIZATION, OUTPUT = "Data", "Network", "Losses", "Optimization", "Output"


def as_in(cls: type, name: str) -> Any:
    """A copy of a setting of another dataclass."""
    each = next(each for each in settings_of(cls) if each.name == name)
    return setting(each.default, each.metadata["kind"], each.metadata["help"], each.metadata["group"])


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of every training."""

    content_dir: Path = setting(MISSING, FilePath("a folder"), "folder of photos, flat or nested; required", DATA)
    split: str = setting("train", Choice(("train", "validation", "test")), "part of the photos to train on", DATA)
    batch_size: int = setting(4, Integer(1), "photos per iteration", DATA)
    image_size: int = setting(256, Integer(32), "side of the training crops, in pixels", DATA)
    num_workers: int = setting(2, Integer(0), "processes that decode and crop photos", DATA)

    preset: str = setting(
        "default", Choice(("paper", "default", "fast")), "architecture; the other options refine it", NETWORK
    )
    init_features: int | None = setting(None, Integer(1), "channels of the first layer; default: the preset's", NETWORK)
    num_residuals: int | None = setting(None, Integer(0), "residual blocks; default: the preset's", NETWORK)
    initial_weights: Path | None = setting(
        None,
        FilePath("a weights file"),
        "start from this network, a file or a name, of the same layers: faster than from scratch; a style begins as "
        "the one of its name, or as the mean of all",
        NETWORK,
    )
    initial_share: float = setting(
        0.0,
        Number(0, 1),
        "share of the initial weights mixed into those written; about 0.25 softens patterns that a loss introduces",
        NETWORK,
    )

    loss_network: str = setting("vgg16", Choice(("vgg16", "vgg19")), "network whose features are compared", LOSSES)
    loss_weights: Path | None = setting(
        None, FilePath("a file"), "its weights, .safetensors or .pth; default: torchvision's, downloaded once", LOSSES
    )
    loss_weights_sha256: str | None = setting(None, Text("a SHA-256"), "expected digest of that file", LOSSES)
    content_layers: tuple[str, ...] = setting(("relu2_2",), Several(Text("a layer")), "layers for content", LOSSES)
    content_weight: tuple[float, ...] = setting(
        (1.0,), Several(Number(0)), "weight of the feature reconstruction loss, one for all layers or one each", LOSSES
    )

    steadiness_weight: float = setting(
        0.0,
        Number(0),
        "weight of the steadiness loss, against flicker in videos and a weave in enlargements; the network runs twice",
        LOSSES,
    )

    iterations: int = setting(40_000, Integer(1), "iterations in all", OPTIMIZATION)
    minutes: float | None = setting(
        None,
        Number(0),
        "stop after this many minutes, with a checkpoint to resume from; default: no limit",
        OPTIMIZATION,
    )
    optimizer: str = setting(
        "adam", Choice(("muon", "adam")), "adam is the paper's; muon is not better here", OPTIMIZATION
    )
    lr: float = setting(1e-3, Number(0), "learning rate", OPTIMIZATION)
    lr_schedule: str = setting(
        "constant", Choice(("constant", "cosine")), "cosine: 50 iterations of warm-up, then falling to 0", OPTIMIZATION
    )
    precision: str = setting(
        "auto",
        Choice(("auto", "float32", "bfloat16")),
        "of features and activations; auto: bfloat16 where it is fast, on GPUs and CPUs with AVX-512 BF16 or AMX",
        OPTIMIZATION,
    )
    compile: str = setting(
        "auto",
        Choice(("auto", "yes", "no")),
        "compile the step: takes a minute and needs a C++ compiler; a sixth faster on a CPU; auto: only on a GPU",
        OPTIMIZATION,
    )
    device: str | None = setting(None, Text("a device"), "cpu, cuda, cuda:1, …; default: a GPU if any", OPTIMIZATION)
    seed: int = setting(0, Integer(0), "seed of all random numbers", OPTIMIZATION)

    name: str | None = setting(
        None,
        Text("a name"),
        "name of the network; default: the painting's file name; of many styles, styles; for super-resolution, with "
        "factor and loss, such as super_resolution_x4_pixel",
        OUTPUT,
    )
    model_path: Path | None = setting(
        None, FilePath("a file"), "weights to write; default: networks/NAME.safetensors", OUTPUT
    )
    sample_path: Path | None = setting(
        None, FilePath("a folder"), "folder of this run, for checkpoint, samples and logs; default: runs/NAME", OUTPUT
    )
    samples: int = setting(5, Integer(1), "photos on a sample sheet", OUTPUT)
    log_step: int = setting(100, Integer(1), "iterations between two lines of the log", OUTPUT)
    sample_step: int = setting(500, Integer(1), "iterations between two sample sheets", OUTPUT)
    save_step: int = setting(500, Integer(1), "iterations between two checkpoints", OUTPUT)
    licence: str | None = setting(None, Text("a licence"), "licence of the weights, for their metadata", OUTPUT)


@dataclass(frozen=True, kw_only=True)
class PaintingSettings(TrainingSettings):
    """Further settings of every training on paintings."""

    in_channels: int = setting(3, OneOf((1, 3)), "3: the network sees colour; 1: only brightness", NETWORK)
    style_layers: tuple[str, ...] = setting(
        ("relu1_2", "relu2_2", "relu3_3", "relu4_3"), Several(Text("a layer")), "layers for style", LOSSES
    )
    style_weights: tuple[float, ...] = setting(
        (1.0,), Several(Number(0)), "weight of the style reconstruction loss, one for all layers or one each", LOSSES
    )
    reg_weight: float = setting(1e5, Number(0), "weight of the total variation loss", LOSSES)
    peak_weight: float = setting(
        0.0, Number(0), "weight of the peak loss, against flat black regions; try 2e4 if there are any", LOSSES
    )
    grid_weight: float = setting(
        0.0,
        Number(0),
        "weight of the grid loss, against rows of dots or a weave in flat areas; the network runs again, on plain "
        "images; try 2e5",
        LOSSES,
    )
    grain: float = setting(
        0.0,
        Number(0, 1),
        "strength of smooth noise in photos, from which flat areas get strokes instead of a weave: the mean while "
        "training, and that of the network's pictures; 0.5 is 8 levels of 255",
        NETWORK,
    )
    optimizer: str = setting(
        "muon", Choice(("muon", "adam")), "muon needs fewer iterations; adam is the paper's", OPTIMIZATION
    )


@dataclass(frozen=True, kw_only=True)
class StyleSettings(PaintingSettings):
    """Further settings of the training of one style."""

    style_image: Path = setting(MISSING, FilePath("an image file"), "image file of the painting; required", DATA)
    style_size: int = setting(
        384, Integer(32), "the painting's shorter side in training, in pixels; larger sizes give larger strokes", DATA
    )
    content_image: Path | None = setting(
        None, FilePath("an image file"), "photo whose evolution the animation shows; default: one of the samples", DATA
    )


@dataclass(frozen=True, kw_only=True)
class StylesSettings(PaintingSettings):
    """Further settings of the training of many styles in one network."""

    style_dir: Path = setting(
        MISSING, FilePath("a folder"), "folder of paintings; paintings.toml in it may name them; required", DATA
    )
    style_sizes: tuple[int, ...] = setting(
        (256, 512),
        Several(Integer(32)),
        "the paintings' shorter side in training, in pixels: one, or two for fine and coarse strokes",
        DATA,
    )
    style_weights: tuple[float, ...] = setting(
        (5.0,),
        Several(Number(0)),
        "weight of the style reconstruction loss, one for all layers or one each; 1: it is 1e6 for unchanged photos",
        LOSSES,
    )
    trainable: str = setting(
        "all",
        Choice(("all", "styles")),
        "styles: keep the convolutions of the initial weights, for example to learn a second size of strokes",
        NETWORK,
    )
    style_factors: tuple[str, ...] = setting(
        (), Several(Text("NAME=NUMBER")), "more or less style for single paintings, such as great_wave=2", LOSSES
    )
    style_draws: tuple[str, ...] = setting(
        (),
        Several(Text("NAME=NUMBER")),
        "how often single paintings are drawn, such as starry_night=6; others: 1",
        DATA,
    )
    peak_weight: float = setting(2e4, Number(0), "weight of the peak loss, against flat black regions", LOSSES)
    teacher: Path | None = setting(
        None,
        FilePath("a network"),
        "learn the pictures of this network of the same styles, a file or a name, instead of content, style and total "
        "variation: quicker, for a network of fewer features; go on from there without it",
        LOSSES,
    )
    content_layers: tuple[str, ...] = setting(("relu3_3",), Several(Text("a layer")), "layers for content", LOSSES)


@dataclass(frozen=True, kw_only=True)
class LearningSettings(PaintingSettings):
    """Further settings of learning a painting on a trunk, and its own defaults."""

    trunk: Path = setting(
        MISSING,
        FilePath("a network"),
        "learn the style in minutes on this network of many styles, a file or a name; its convolutions are not changed",
        NETWORK,
    )
    style_image: Path = setting(MISSING, FilePath("an image file"), "image file of the painting; required", DATA)
    style_sizes: tuple[int, ...] = setting(
        (256, 512),
        Several(Integer(32)),
        "the painting's shorter side in training, in pixels, as many sizes as the trunk has, such as 256 512: for fine "
        "and for coarse strokes",
        DATA,
    )
    style_weights: tuple[float, ...] = as_in(StylesSettings, "style_weights")
    content_layers: tuple[str, ...] = as_in(StylesSettings, "content_layers")
    batch_size: int = setting(2, Integer(1), "photos per iteration", DATA)
    image_size: int = setting(320, Integer(32), "side of the training crops, in pixels", DATA)
    iterations: int = setting(150, Integer(1), "iterations in all", OPTIMIZATION)
    optimizer: str = setting(
        "adam",
        Choice(("muon", "adam")),
        "muon is for convolutions, which are not trained here, so both are the same",
        OPTIMIZATION,
    )
    lr: float = setting(2e-2, Number(0), "learning rate", OPTIMIZATION)
    lr_schedule: str = setting(
        "cosine", Choice(("constant", "cosine")), "cosine: 50 iterations of warm-up, then falling to 0", OPTIMIZATION
    )
    name: str | None = setting(
        None, Text("a name"), "name of the style; default: the painting's file name, without its ending", OUTPUT
    )
    log_step: int = setting(10, Integer(1), "iterations between two lines of the log", OUTPUT)
    sample_step: int = setting(50, Integer(1), "iterations between two sample sheets", OUTPUT)
    save_step: int = setting(25, Integer(1), "iterations between two checkpoints", OUTPUT)


@dataclass(frozen=True, kw_only=True)
class SuperResolutionSettings(TrainingSettings):
    """Further settings of a super-resolution training, and its own defaults."""

    image_size: int = setting(288, Integer(32), "side of the targets, in pixels; photos are cropped, not resized", DATA)
    degradation: str = setting(
        "mixed",
        Choice(DEGRADATIONS),
        "how inputs are computed: mixed draws blur, filter and JPEG for each crop, as photos are met; paper blurs and "
        "reduces bicubically; bicubic only reduces",
        DATA,
    )
    upscale_factor: int = setting(4, OneOf(SCALES), "how many times larger the output is", NETWORK)
    blend: str = setting(
        "no",
        Choice(("yes", "no")),
        "yes: write the initial weights too, so that each request chooses between both by its fidelity",
        NETWORK,
    )
    loss: str = setting(
        "feature", Choice(("feature", "pixel", "both")), "what is compared: features, pixels, or both, weighted", LOSSES
    )
    pixel_weight: float = setting(
        1.0,
        Number(0),
        "weight of the pixel loss; with --loss both, about 100 makes it as large as the feature loss",
        LOSSES,
    )
    grid_weight: float = setting(
        0.0, Number(0), "weight of the grid loss, against the weave that features cause; try 8000", LOSSES
    )
    texture_weight: float = setting(
        0.0, Number(0), "weight of the texture loss, for detail as strong as in photos; try 100", LOSSES
    )
    reg_weight: float = setting(0.0, Number(0), "weight of the total variation loss; 1e4 has a small effect", LOSSES)
    iterations: int = setting(200_000, Integer(1), "iterations in all", OPTIMIZATION)


@dataclass(frozen=True, kw_only=True)
class OptimizationSettings:
    """Settings of an optimization of a picture."""

    style_image: Path = as_in(StyleSettings, "style_image")
    style_size: int = as_in(StyleSettings, "style_size")
    max_size: int = setting(512, Integer(16, 16384), "reduce the photo to this longest side, in pixels, first", DATA)

    loss_network: str = as_in(StyleSettings, "loss_network")
    loss_weights: Path | None = as_in(StyleSettings, "loss_weights")
    loss_weights_sha256: str | None = as_in(StyleSettings, "loss_weights_sha256")
    content_layers: tuple[str, ...] = as_in(StyleSettings, "content_layers")
    content_weight: tuple[float, ...] = as_in(StyleSettings, "content_weight")
    style_layers: tuple[str, ...] = as_in(StyleSettings, "style_layers")
    style_weights: tuple[float, ...] = as_in(StyleSettings, "style_weights")
    reg_weight: float = as_in(StyleSettings, "reg_weight")

    start: str = setting("photo", Choice(("photo", "noise")), "the initial picture", OPTIMIZATION)
    iterations: int = setting(500, Integer(1), "iterations of L-BFGS", OPTIMIZATION)
    device: str | None = as_in(StyleSettings, "device")
    seed: int = setting(0, Integer(0), "seed of the noise", OPTIMIZATION)


PATHS = {
    each.name: each
    for cls in (StyleSettings, StylesSettings, LearningSettings, SuperResolutionSettings)
    for each in settings_of(cls)
    if isinstance(each.metadata["kind"], FilePath)
}
# Settings of a network that is learned on, and so not of the learning.
DETERMINED = (*(each.name for each in settings_of(PaintingSettings) if each.metadata["group"] == NETWORK), "style_size")
# Settings of a learning that by default are those of the trunk's own training. The losses of steadiness and grids are
# not among them, as the network runs again for each, nor is the peak loss, which takes a tenth of the time and found no
# peaks.
FROM_TRUNK = (
    "loss_network",
    "content_layers",
    "content_weight",
    "style_layers",
    "style_weights",
    "reg_weight",
    "style_sizes",
)
NETWORKS = ("initial-weights", "teacher", "trunk")  # settings that may be the name of a network
# Settings that may change on resume, as they do not affect the result.
FREE_ON_RESUME = PATHS.keys() | {
    "compile",
    "initial_share",
    "num_workers",
    "device",
    "iterations",
    "minutes",
    "loss_weights_sha256",
    "samples",
    "log_step",
    "sample_step",
    "save_step",
    "licence",
}


def find_recipe(name_or_path: Path) -> Path:
    """The file of a recipe: at a path, or one that ships with a name such as ``the_scream``.

    Raises:
        InvalidOption: There is neither.
    """
    if name_or_path.is_file():
        return name_or_path
    shipped = {file.stem: file for file in sorted(RECIPES.glob("*.toml"))}
    if file := shipped.get(str(name_or_path)):
        return file
    hint = did_you_mean(str(name_or_path), shipped)
    raise InvalidOption(
        f"recipe {name_or_path}: no such file, and no recipe of that name ships ({', '.join(shipped)}){hint}"
    )


def read_recipe(path: Path) -> dict[str, Any]:
    """The settings of a recipe, by option name.

    Relative paths are taken from the recipe's folder; a network without folder and ending is a name.

    Args:
        path: A file or a name, as for :func:`find_recipe`.

    Raises:
        InvalidOption: The file is missing, as from :func:`find_recipe`, or is not TOML.
    """
    path = find_recipe(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidOption(f"recipe {path}: {error}") from error
    for name, value in values.items():
        if name in NETWORKS and isinstance(value, str) and Path(value).name == Path(value).stem == value:
            continue
        if name.replace("-", "_") in PATHS and isinstance(value, str) and value:
            values[name] = path.parent / parse_one(PATHS[name.replace("-", "_")], value)
    return values


def weights_by_layer(layers: tuple[str, ...], weights: tuple[float, ...], option: str) -> dict[str, float]:
    """Pairs layers with weights; a single weight holds for all.

    Raises:
        InvalidOption: Neither one weight nor one for each layer, or a layer is named twice.
    """
    if len(set(layers)) < len(layers):
        raise InvalidOption(f"{option}: one of {' '.join(layers)} is named twice")
    if len(weights) not in (1, len(layers)):
        raise InvalidOption(
            f"{option}: expected 1 or {len(layers)} numbers, for {' '.join(layers)}; got {len(weights)}"
        )
    return dict(zip(layers, weights * len(layers) if len(weights) == 1 else weights, strict=True))


def plain(settings: "DataclassInstance") -> dict[str, Any]:
    """Settings as plain JSON values."""
    return {name: plain_value(value) for name, value in asdict(settings).items()}


def plain_value(value: Any) -> Any:
    """A setting's value as a JSON value."""
    if isinstance(value, tuple):
        return [plain_value(each) for each in value]
    return str(value) if isinstance(value, Path) else value
