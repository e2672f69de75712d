"""Large images in tiles, for networks whose outputs depend on a neighbourhood alone."""

from collections.abc import Callable

from torch import Tensor


def run_in_tiles(function: Callable[[Tensor], Tensor], images: Tensor, side: int, margin: int, scale: int) -> Tensor:
    """Runs a function on overlapping tiles: the memory it needs no longer grows with the image.

    Args:
        function: Maps N×C×H×W to N×C×(scale·H)×(scale·W), on any device.
        images: N×C×H×W. The result is of their type and on their device.
        side: Of the square tiles, in input pixels, without the margin.
        margin: How far around it an output pixel looks, in input pixels; with so much of their surroundings, tiles
            give what the whole image would.
        scale: How much larger the output is.
    """
    height, width = images.shape[-2:]
    output = images.new_empty(*images.shape[:2], scale * height, scale * width)
    for top in range(0, height, side):
        for left in range(0, width, side):
            above, before = min(margin, top), min(margin, left)  # at the image's border there is nothing to see
            tile = images[..., top - above : top + side + margin, left - before : left + side + margin]
            made = function(tile)[..., scale * above :, scale * before :]
            place = output[..., scale * top : scale * (top + side), scale * left : scale * (left + side)]
            place.copy_(made[..., : place.shape[-2], : place.shape[-1]])
    return output
