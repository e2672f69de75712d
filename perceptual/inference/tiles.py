"""Runs large images tile by tile, through networks with a limited receptive field."""

from collections.abc import Iterator

import torch
from torch import Tensor

from .parts import Network, Part, to_float


def run_in_tiles(
    network: Network, images: Tensor, side: int, margin: int, scale: int, device: torch.device
) -> Iterator[Part]:
    """Runs a network on overlapping tiles, so that memory does not grow with the image.

    Args:
        network: The network, on the device; maps N×3×H×W to N×3×(scale·H)×(scale·W).
        images: N×3×H×W, floats in [0, 1] or bytes, on any device.
        side: Side of the square tiles, in input pixels, without the margin.
        margin: The network's receptive field on each side, in input pixels. With this margin, tiles give the same
            result as the whole image.
        scale: Factor of enlargement.
        device: Device for computing.

    Yields:
        Every tile, without its margin.
    """
    height, width = images.shape[-2:]
    for top in range(0, height, side):
        for left in range(0, width, side):
            above, before = min(margin, top), min(margin, left)  # there are no pixels beyond the image's border
            tile = images[..., top - above : top + side + margin, left - before : left + side + margin]
            rows, columns = slice(top, min(top + side, height)), slice(left, min(left + side, width))
            down, across = slice(above, above + rows.stop - top), slice(before, before + columns.stop - left)
            yield Part(
                (slice(None), slice(None), enlarged(rows, scale), enlarged(columns, scale)),
                network(to_float(tile, device))[..., enlarged(down, scale), enlarged(across, scale)],
            )


def enlarged(pixels: slice, scale: int) -> slice:
    """The same pixels in an image ``scale`` times larger."""
    return slice(scale * pixels.start, scale * pixels.stop)
