"""Compares super-resolution networks with bicubic enlargement, on high-resolution images.

PSNR and SSIM are measured as in the literature on super-resolution: on images of 8 bits, without a border as wide as
the factor, on the Y of ITU-R BT.601 (16 to 235), as MATLAB's ``rgb2ycbcr`` gives it, and on RGB; SSIM with the Gaussian
window of Wang et al. 2004. The feature distance is equation 2 of Johnson et al. 2016. LPIPS (Zhang et al. 2018) is
measured if torchvision's AlexNet is in PyTorch's cache.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torchvision.models import AlexNet_Weights

from perceptual.errors import InputError, TrainingError
from perceptual.files import write_atomically
from perceptual.inference import images
from perceptual.inference.finishing import to_bytes
from perceptual.inference.images import Picture
from perceptual.inference.metadata import find_distinct
from perceptual.inference.networks.base import luma
from perceptual.inference.predictor import Predictor, load
from perceptual.inference.resampling import resize_bicubic
from perceptual.inference.sheets import Tile, contact_sheet
from perceptual.options import UpscaleOptions

from .data import image_files
from .degradation import degrade
from .evaluation_settings import EvaluationSettings
from .loss_network import LossNetwork, load_loss_network
from .machine import exact_float32
from .report import Row, averages, encoded, table
from .settings import plain

if TYPE_CHECKING:
    from torchmetrics import Metric

LAYERS = ("relu2_2", "relu3_3")
MATCHED = {  # the forms of histogram matching in which each network's output is measured
    "": UpscaleOptions(histogram_matching=False),
    ", matched": UpscaleOptions(low_frequencies=False),
    ", matched low": UpscaleOptions(),
}
SMALLEST = 11  # pixels; the side of SSIM's window
SMALLEST_FOR_LPIPS = 31  # pixels; the smallest side that AlexNet's layers accept
EXACT = 100.0  # dB, for a result without error, so that means stay finite
CROP, ZOOM = 64, 3  # side of the contact sheet's crops in pixels, and how many times they are enlarged


def evaluate(settings: EvaluationSettings) -> Path:
    """Measures networks and bicubic enlargement on every image of a folder.

    Returns:
        The report as Markdown. In its folder are the same figures as JSON, and a contact sheet for each factor.

    Raises:
        WeightsError: A network is missing or for another task.
        TrainingError: No image can be measured, or the loss network cannot be loaded.
    """
    exact_float32()
    predictors = {name: load(file, settings.device, "eager") for name, file in find_distinct(settings.model).items()}
    for predictor in predictors.values():
        predictor.require("super-resolution")
    loss_network, origin = None, "not measured"
    if settings.loss_network != "none":
        loss_network, origin = load_loss_network(
            settings.loss_network, LAYERS, settings.loss_weights, settings.loss_weights_sha256
        )
    perceptual_metric = lpips()
    smallest = SMALLEST if perceptual_metric is None else SMALLEST_FOR_LPIPS
    settings.output.mkdir(parents=True, exist_ok=True)
    files = image_files(settings.data, "--data")
    scales = sorted({each.network.scale for each in predictors.values()})
    for name, photo in readable_images(files):  # before any work; all of them may not fit into the memory
        if min(divisible(photo, scales[-1]).shape[1:]) < smallest + 2 * scales[-1]:
            raise TrainingError(f"{name} has too few pixels to be measured at ×{scales[-1]}")
    rows: list[Row] = []  # image, scale, degradation, method, and a figure for each metric
    for scale in scales:
        compared = {name: each for name, each in predictors.items() if each.network.scale == scale}
        crops: list[list[Tile]] = []
        for name, photo in readable_images(files):
            target = divisible(photo, scale)
            results = enlargements(target, scale, settings.degradation, compared, settings.fidelity)
            for method, result in results.items():
                facts = {"image": name, "scale": scale, "degradation": settings.degradation, "method": method}
                rows.append({**facts, **measure(result, target, scale, loss_network, perceptual_metric)})
            tiles = {name: enlarged(detail(each, target)) for name, each in {**results, "target": target}.items()}
            crops.append([("" if crops else name, tile) for name, tile in tiles.items()])
        picture = contact_sheet(crops)
        picture.save(settings.output / f"contact_sheet_x{scale}.png")
    means = averages(rows, "scale", "method")
    facts = {**plain(settings), "loss_network": origin}
    content = json.dumps({"settings": facts, "means": means, "images": rows}, indent=2, ensure_ascii=False)
    write_atomically(settings.output / "super_resolution.json", encoded(content))
    report = settings.output / "super_resolution.md"
    write_atomically(report, encoded(markdown(means, rows, len(files), origin)))
    return report


def readable_images(files: Sequence[Path]) -> Iterator[tuple[str, Tensor]]:
    """Names and pixels, uint8 3×H×W, of images, one by one. Raises TrainingError naming one that cannot be read."""
    for file in files:
        try:
            yield file.name, images.load(file).opaque()
        except InputError as error:
            raise TrainingError(str(error)) from error


def divisible(image: Tensor, scale: int) -> Tensor:
    """An image 3×H×W cropped to multiples of ``scale``."""
    height, width = (side - side % scale for side in image.shape[1:])
    return image[:, :height, :width]


def enlargements(
    target: Tensor, scale: int, degradation: str, predictors: Mapping[str, Predictor], fidelities: Sequence[float]
) -> dict[str, Tensor]:
    """An image's reduction, enlarged by bicubic and by every network in every variant: uint8 3×H×W, by method."""
    low = degrade(target[None].float() / 255, scale, degradation)
    results = {"bicubic": to_bytes(resize_bicubic(low, scale)[0])}
    for name, predictor in predictors.items():
        variants = variants_of(predictor, fidelities)
        pictures = predictor.upscale_pictures([Picture(to_bytes(low[0]))] * len(variants), list(variants.values()))
        results |= {name + suffix: picture.rgb for suffix, picture in zip(variants, pictures, strict=True)}
    return results


def variants_of(predictor: Predictor, fidelities: Sequence[float]) -> dict[str, UpscaleOptions]:
    """The options with which a network is measured, by what is added to its name."""
    if not predictor.network.config["blended"]:
        return MATCHED
    return {
        f" at {fidelity:g}{suffix}": replace(options, fidelity=fidelity)
        for fidelity in fidelities
        for suffix, options in MATCHED.items()
    }


def lpips() -> "Metric | None":
    """LPIPS by AlexNet, for images in [0, 1]; None if its weights are not in PyTorch's cache."""
    file = AlexNet_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    if not Path(torch.hub.get_dir(), "checkpoints", file).is_file():
        return None
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity  # takes seconds, for matplotlib

    return LearnedPerceptualImagePatchSimilarity("alex", normalize=True)


def measure(
    result: Tensor,
    target: Tensor,
    border: int,
    loss_network: LossNetwork | None = None,
    perceptual_metric: "Metric | None" = None,
) -> dict[str, float]:
    """All figures for one result against its target, both uint8 3×H×W, without ``border`` pixels at every side."""
    result, target = (each[:, border:-border, border:-border] for each in (result, target))
    rgb, expected = (each.permute(1, 2, 0).numpy() for each in (result, target))
    y, expected_y = (rgb2ycbcr(each)[..., 0] for each in (rgb, expected))
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    figures = {
        "PSNR Y": psnr(expected_y, y),
        "SSIM Y": structural_similarity(expected_y, y, **window),
        "PSNR RGB": psnr(expected, rgb),
        "SSIM RGB": structural_similarity(expected, rgb, channel_axis=2, **window),
    }
    pair = [each[None].float() / 255 for each in (result, target)]
    with torch.inference_mode():
        if perceptual_metric:
            figures["LPIPS"] = perceptual_metric(*pair)
        if loss_network:
            features, references = (loss_network(each, LAYERS) for each in pair)
            figures |= {layer: F.mse_loss(features[layer], references[layer]) for layer in LAYERS}
    return {name: float(value) for name, value in figures.items()}


def psnr(expected: np.ndarray, found: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of values up to 255."""
    if np.array_equal(expected, found):
        return EXACT
    return min(EXACT, peak_signal_noise_ratio(expected, found, data_range=255))


def markdown(means: Sequence[Row], rows: Sequence[Row], count: int, origin: str) -> str:
    """The report: means first, then every image."""
    return "\n".join(
        [
            "# Super-resolution, measured",
            "",
            f"{count} images of 8 bits. Inputs are reductions of them: `paper` blurs with a Gaussian of σ = 1.0 px and "
            "reduces bicubically, `bicubic` only reduces. A border as wide as the factor is excluded. PSNR is in dB; "
            f"features, at relu2_2 and relu3_3, are mean squared distances (loss network: {origin}). `matched`: "
            "histogram matching to the input; `matched low`: histogram matching of low frequencies, the default; `at`: "
            "the fidelity.",
            "",
            *table(means, shown),
            "",
            "## Every image",
            "",
            *table(rows, shown),
            "",
        ]
    )


def shown(name: str, value: Any) -> str:
    """A figure with its significant digits."""
    if not isinstance(value, float):
        return f"×{value}" if name == "scale" else str(value)
    digits = {"PSNR": 2, "SSIM": 4, "LPIP": 4}
    return f"{value:.{digits.get(name[:4], 0)}f}"


def detail(image: Tensor, target: Tensor) -> Tensor:
    """A square crop of an image at the place where its target, both uint8 3×H×W, has the most detail."""
    side = min(CROP, *target.shape[1:])
    y = luma(target[None].float() / 255)
    energy = y.diff(dim=2)[..., 1:].square() + y.diff(dim=3)[..., 1:, :].square()
    amounts = F.avg_pool2d(energy, side - 1, stride=1)[0, 0]
    top, left = divmod(int(amounts.argmax()), amounts.shape[1])
    return image[:, top : top + side, left : left + side]


def enlarged(crop: Tensor) -> Image.Image:
    """A crop, uint8 3×S×S, enlarged so that its pixels are visible."""
    image = Image.fromarray(np.ascontiguousarray(crop.permute(1, 2, 0).numpy()))
    return image.resize((CROP * ZOOM, CROP * ZOOM), Image.Resampling.NEAREST)
