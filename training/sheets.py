"""Sample sheets and animations."""

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from perceptual.files import write_atomically


def sheet(rows: Sequence[Sequence[Tensor]]) -> Image.Image:
    """Lays out images 3×H×W in [0, 1], all of one size, in rows."""
    images = [image.detach().float().cpu().clamp(0, 1) for row in rows for image in row]
    return to_pil_image(make_grid(torch.stack(images), nrow=len(rows[0]), padding=4, pad_value=1))


def animate(frames: Sequence[Path], path: Path) -> None:
    """Writes pictures as an endless GIF that pauses on the last one."""
    if frames:
        pictures = [Image.open(frame).convert("RGB") for frame in frames]
        durations = [120] * (len(pictures) - 1) + [2000]  # milliseconds
        buffer = io.BytesIO()
        pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
        write_atomically(path, buffer.getvalue())
