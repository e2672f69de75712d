"""Photos that benchmarks are run on."""

from io import BytesIO
from pathlib import Path

from PIL import Image

PHOTOS = Path(__file__).parents[1] / "docs" / "photos"


def noise(size: int) -> bytes:
    """A JPEG photo of noise, square."""
    photo = BytesIO()
    Image.effect_noise((size, size), 64).convert("RGB").save(photo, "JPEG")
    return photo.getvalue()
