from pathlib import Path

import torch
import yaml
from ts.model_server import load_properties

from perceptual.images import MAX_PIXELS, Picture, encode

ROOT = Path(__file__).parents[1]


def test_the_largest_picture_fits_into_a_reply():
    limit = int(load_properties(str(ROOT / "config.properties"))["max_response_size"])
    noise = torch.randint(0, 256, (4, 500, 500), dtype=torch.uint8)
    bytes_per_pixel = len(encode(Picture(noise[:3], noise[3:]), "png")) / 500**2
    assert bytes_per_pixel > 4  # it does not compress
    assert MAX_PIXELS * bytes_per_pixel < limit


def test_models_accept_what_the_library_does():
    for file in ROOT.glob("handlers/*.yaml"):
        assert yaml.safe_load(file.read_text())["max_pixels"] == MAX_PIXELS
