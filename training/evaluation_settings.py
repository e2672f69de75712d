"""Settings of evaluations: command-line options and their defaults."""

from dataclasses import MISSING, dataclass
from pathlib import Path

from perceptual.options import FIDELITY
from perceptual.settings import Choice, FilePath, Integer, Number, Several, Text, setting

from .settings import OptimizationSettings, as_in
from .splits import SPLITS


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Settings of an evaluation of super-resolution."""

    model: tuple[str, ...] = setting(
        MISSING, Several(Text("a network")), "weights files or names of networks; required"
    )
    data: Path = setting(MISSING, FilePath("a folder"), "folder of high-resolution images; required")
    degradation: str = setting(
        "paper",
        Choice(("paper", "bicubic")),
        "how inputs are computed: paper blurs, then reduces bicubically; bicubic only reduces",
    )
    fidelity: tuple[float, ...] = setting(
        (0.0, FIDELITY, 1.0), Several(Number(0, 1)), "fidelities at which networks that have the choice are measured"
    )
    loss_network: str = setting(
        "vgg16", Choice(("vgg16", "vgg19", "none")), "network whose features are compared; none skips this"
    )
    loss_weights: Path | None = setting(
        None, FilePath("a file"), "its weights, .safetensors or .pth; default: torchvision's, downloaded once"
    )
    loss_weights_sha256: str | None = setting(None, Text("a SHA-256"), "expected digest of that file")
    output: Path = setting(Path("runs/evaluation"), FilePath("a folder"), "folder of the report")
    device: str | None = setting(None, Text("a device"), "cpu, cuda, cuda:1, …; default: a GPU if any")


@dataclass(frozen=True, kw_only=True)
class StyleEvaluationSettings:
    """Settings of an evaluation of style networks."""

    model: tuple[str, ...] = as_in(EvaluationSettings, "model")
    content: Path = setting(MISSING, FilePath("a folder"), "folder of photos; required")
    split: str = setting("test", Choice(tuple(SPLITS)), "part of them; use all if none was used in training")
    photos: int = setting(5, Integer(1), "number of photos, evenly spaced over the folder")
    sizes: tuple[int, ...] = setting((256, 512, 1024), Several(Integer(32)), "sides of the squares measured, in pixels")
    iterations: tuple[int, ...] = setting(
        (10, 25, 50, 100, 200, 500), Several(Integer(1)), "iterations of optimization to compare with"
    )
    start: str = as_in(OptimizationSettings, "start")
    style_image: Path | None = setting(
        None, FilePath("an image file"), "the painting; default: the one that ships for the network"
    )
    loss_weights: Path | None = setting(
        None, FilePath("a file"), "the loss network's weights, as in the training; default: torchvision's"
    )
    loss_weights_sha256: str | None = as_in(EvaluationSettings, "loss_weights_sha256")
    output: Path = as_in(EvaluationSettings, "output")
    device: str | None = as_in(EvaluationSettings, "device")


@dataclass(frozen=True, kw_only=True)
class ManyStylesEvaluationSettings:
    """Settings of an evaluation of a network of many styles."""

    model: str = setting(MISSING, Text("a network"), "weights file, or a network that ships; required")
    style_dir: Path = setting(MISSING, FilePath("a folder"), "folder of its paintings; required")
    styles: tuple[str, ...] = setting(
        (), Several(Text("a style")), "styles to measure; default: all whose painting is in the folder"
    )
    against: tuple[str, ...] = setting((), Several(Text("a network")), "networks of one style to compare with")
    content: Path = as_in(StyleEvaluationSettings, "content")
    split: str = as_in(StyleEvaluationSettings, "split")
    photos: int = as_in(StyleEvaluationSettings, "photos")
    sizes: tuple[int, ...] = as_in(StyleEvaluationSettings, "sizes")
    loss_weights: Path | None = as_in(StyleEvaluationSettings, "loss_weights")
    loss_weights_sha256: str | None = as_in(StyleEvaluationSettings, "loss_weights_sha256")
    output: Path = as_in(StyleEvaluationSettings, "output")
    device: str | None = as_in(StyleEvaluationSettings, "device")


@dataclass(frozen=True, kw_only=True)
class VideoEvaluationSettings:
    """Settings of an evaluation of the flicker of videos."""

    model: str = setting(MISSING, Text("a network"), "weights file, or a network that ships; required")
    style: str | None = setting(None, Text("a style"), "which style, of a network of many")
    style_dir: Path | None = setting(
        None,
        FilePath("a folder"),
        "folder of such a network's paintings, or of a learned style's, with its name; default: those that ship",
    )
    clips: tuple[Path, ...] = setting(MISSING, Several(FilePath("a video")), "videos; required")
    frames: int = setting(30, Integer(2), "number of frames of each, from its beginning")
    max_size: int = setting(256, Integer(32), "longest side to which they are reduced, in pixels")
    style_image: Path | None = as_in(StyleEvaluationSettings, "style_image")
    loss_weights: Path | None = as_in(StyleEvaluationSettings, "loss_weights")
    loss_weights_sha256: str | None = as_in(EvaluationSettings, "loss_weights_sha256")
    output: Path = as_in(EvaluationSettings, "output")
    device: str | None = as_in(EvaluationSettings, "device")
