"""Makes the pictures of docs/ from the weights that ship and the photos in docs/photos: ``make gallery``.

Of every style network its results at the photos' own sizes, a sample sheet, and a strip for its heading; of all
together, one sheet. Of super-resolution, for each factor the photos' most detailed places beside bicubic and the truth.
Of the server's page, how it looks in a browser (:mod:`page`, which needs chromium). Logs and animations come from
trainings and stay as they are; loss curves are drawn from the logs.
"""

from pathlib import Path

import torch.nn.functional as F
from curves import curves
from page import screenshots
from PIL import Image
from rich.progress import track
from torch import Tensor

from perceptual.commands.gallery import gallery, shipped_styles
from perceptual.files import write_atomically
from perceptual.inference import images
from perceptual.inference.finishing import to_bytes
from perceptual.inference.images import Picture
from perceptual.inference.metadata import shipped_weights
from perceptual.inference.predictor import Predictor, load, open_picture
from perceptual.inference.resampling import resize_bicubic
from perceptual.inference.sheets import contact_sheet
from perceptual.options import UpscaleOptions
from perceptual_training.degradation import degrade
from perceptual_training.sheets import sheet
from perceptual_training.style_evaluation import STYLES
from perceptual_training.super_resolution_evaluation import detail, divisible, enlarged
from perceptual_training.task import FRAME_SIZE, load_square

DOCS = Path(__file__).parent
PHOTOS = sorted((DOCS / "photos").glob("*.jpg"))
HEADING = ("astronaut", "rocket")  # photos of the strips
HEIGHT = 400  # pixels; of the strips
CELL = 256  # pixels; longest side of a picture on the sheet of all styles


def main() -> None:
    """Makes all pictures."""
    predictors = {name: load(file) for name, file in shipped_styles().items()}
    for name, predictor in track(predictors.items(), "styles"):
        results = {photo.stem: predictor.stylize(photo) for photo in PHOTOS}
        for photo, result in results.items():
            save(result, f"results/{name}/{photo}.jpg")
        save(samples(predictor), f"results/{name}/samples.jpg")
        save(strip(results), f"pictures/{name}.jpg")
    for scale in (4, 8):
        save(enlargements_sheet(scale), f"pictures/super_resolution_x{scale}.jpg")
    write_atomically(DOCS / "pictures/losses.svg", curves(sorted(DOCS.glob("results/*/train.log"))))
    save(gallery([images.shrink(open_picture(photo), CELL) for photo in PHOTOS], predictors), "pictures/gallery.jpg")
    for name, picture in screenshots():
        save(picture, f"pictures/{name}.jpg")


def save(picture: Image.Image, name: str) -> None:
    """Writes a picture into docs/."""
    write_atomically(DOCS / name, images.encode(images.from_pil(picture)))


def enlargements_sheet(scale: int) -> Image.Image:
    """Of each photo, reduced, enlarged and itself, 64 px square crops, three times larger."""
    loaded = {loss: load(shipped_weights()[f"super_resolution_x{scale}_{loss}"]) for loss in ("pixel", "feature")}
    rows = []
    for photo in PHOTOS:
        target = divisible(open_picture(photo).rgb, scale)
        low = degrade(target[None].float() / 255, scale, "paper")
        made = {
            "input": to_bytes(F.interpolate(low, scale_factor=scale)[0]),
            "bicubic": to_bytes(resize_bicubic(low, scale)[0]),
            **{
                loss: each.upscale_pictures([Picture(to_bytes(low[0]))], [UpscaleOptions()])[0].rgb
                for loss, each in loaded.items()
            },
            "photo": target,
        }
        rows.append([(name, enlarged(detail(each, target))) for name, each in made.items()])
    return contact_sheet(rows)


def samples(predictor: Predictor) -> Image.Image:
    """Each photo, the painting if it lies in training/styles, and the result, cut to squares."""
    painting = STYLES / predictor.metadata["provenance"]["style_image"]
    middle = [square(painting)] if painting.is_file() else []
    return sheet([(photo, *middle, predictor(photo[None])[0]) for photo in map(square, PHOTOS)])


def square(file: Path) -> Tensor:
    """The middle of an image, 3×256×256 in [0, 1]."""
    return load_square(file, FRAME_SIZE)[0]


def strip(results: dict[str, Image.Image]) -> Image.Image:
    """Two photos, each beside its result."""
    pictures = [each for photo in HEADING for each in (Image.open(DOCS / f"photos/{photo}.jpg"), results[photo])]
    sizes = [(round(each.width * HEIGHT / each.height), HEIGHT) for each in pictures]
    tiles = [each.resize(size, Image.Resampling.LANCZOS) for each, size in zip(pictures, sizes, strict=True)]
    return contact_sheet([[("", tile) for tile in tiles]])


if __name__ == "__main__":
    main()
