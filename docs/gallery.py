"""Makes the pictures of docs/ from the weights that ship and the photos in docs/photos: ``make gallery``.

Of every style, its painting and all photos in a row; of all styles, one sheet; of some, the fast network beside the
other. Of super-resolution, for each factor the photos' most detailed places beside bicubic and the truth. Of the
server's page, how it looks in a browser (:mod:`page`, which needs chromium). Logs come from trainings and stay as they
are; loss curves are drawn from them.
"""

from collections.abc import Mapping
from pathlib import Path

import torch.nn.functional as F
from curves import curves
from page import screenshots
from PIL import Image
from rich.progress import track

from perceptual.commands.gallery import gallery, styles_of
from perceptual.files import write_atomically
from perceptual.inference import images
from perceptual.inference.finishing import to_bytes
from perceptual.inference.images import Picture
from perceptual.inference.metadata import shipped_weights
from perceptual.inference.predictor import load, open_picture
from perceptual.inference.resampling import resize_bicubic
from perceptual.inference.sheets import Tile, contact_sheet
from perceptual.options import FIDELITY, SCALES, UpscaleOptions
from perceptual_training.degradation import degrade
from perceptual_training.super_resolution_evaluation import detail, divisible, enlarged

DOCS = Path(__file__).parent
PAINTINGS = DOCS.parent / "training/paintings"
PHOTOS = sorted((DOCS / "photos").glob("*.jpg"))
NETWORK, FAST = "styles", "styles_fast"
HEADING = ("starry_night", "composition_vii", "mosaic_with_duck")  # styles on the README's first picture
BOTH = ("starry_night", "the_scream", "udnie", "great_wave")  # styles shown by both networks
QUALITY = 80  # of the rows, of which there are many
HEIGHT = 256  # pixels; of the pictures in a row
CELL = 256  # pixels; longest side of a picture on the sheet of all styles


def main() -> None:
    """Makes all pictures."""
    styles = styles_of({NETWORK: load(NETWORK)})
    results = {}
    for name, predictor, options in track(styles, "styles"):
        made = predictor.stylize_pictures([open_picture(photo) for photo in PHOTOS], [options] * len(PHOTOS))
        results[name] = {photo.stem: each.to_pil() for photo, each in zip(PHOTOS, made, strict=True)}
        painting = PAINTINGS / f"{name}.jpg"
        first = [Image.open(painting)] if painting.is_file() else []
        save(contact_sheet([row([*first, *results[name].values()])]), f"results/styles/{name}.jpg", QUALITY)
    heading = [[Image.open(photo), *(results[style][photo.stem] for style in HEADING)] for photo in PHOTOS[1:4]]
    save(contact_sheet([row(each) for each in heading]), "pictures/styles.jpg")
    save(beside_the_fast_one({style: results[style] for style in BOTH}), "pictures/styles_fast.jpg")
    for scale in SCALES:
        save(enlargements_sheet(scale), f"pictures/super_resolution_x{scale}.jpg")
    write_atomically(DOCS / "pictures/losses.svg", curves(sorted(DOCS.glob("results/*/train.log"))))
    temple = images.shrink(open_picture(DOCS / "photos/china.jpg"), CELL)
    save(gallery([temple], styles), "pictures/gallery.jpg")
    for name, picture in screenshots():
        save(picture, f"pictures/{name}.jpg")


def save(picture: Image.Image, name: str, quality: int = 90) -> None:
    """Writes a picture into docs/."""
    write_atomically(DOCS / name, images.encode(images.from_pil(picture), quality=quality))


def beside_the_fast_one(results: Mapping[str, Mapping[str, Image.Image]]) -> Image.Image:
    """Of each style, two photos as the large network draws them, from ``results``, and as the fast one does."""
    fast = load(FAST)
    rows: list[list[Tile]] = []
    for style, pictures in results.items():
        pairs = [(pictures[photo.stem], fast.stylize(photo, style=style)) for photo in PHOTOS[:2]]
        names = ("", "") if rows else (str(NETWORK), str(FAST))
        rows.append(scaled([tile for pair in pairs for tile in zip(names, pair, strict=True)]))
    return contact_sheet(rows)


def enlargements_sheet(scale: int) -> Image.Image:
    """Of each photo, reduced, enlarged and itself, 64 px square crops, three times larger."""
    predictor = load(shipped_weights()[f"super_resolution_x{scale}"])
    fidelities = {f"fidelity {value:g}": UpscaleOptions(fidelity=value) for value in (1.0, FIDELITY, 0.0)}
    rows = []
    for photo in PHOTOS:
        target = divisible(open_picture(photo).rgb, scale)
        low = degrade(target[None].float() / 255, scale, "bicubic")
        made = {
            "input": to_bytes(F.interpolate(low, scale_factor=scale)[0]),
            "bicubic": to_bytes(resize_bicubic(low, scale)[0]),
            **{
                name: predictor.upscale_pictures([Picture(to_bytes(low[0]))], [options])[0].rgb
                for name, options in fidelities.items()
            },
            "photo": target,
        }
        rows.append([(name, enlarged(detail(each, target))) for name, each in made.items()])
    return contact_sheet(rows)


def row(pictures: list[Image.Image]) -> list[Tile]:
    """Pictures of one height for a row of a sheet, without names."""
    return scaled([("", each) for each in pictures])


def scaled(tiles: list[Tile]) -> list[Tile]:
    """Named pictures at one height for a row of a sheet."""
    sizes = [(round(each.width * HEIGHT / each.height), HEIGHT) for _, each in tiles]
    lanczos = Image.Resampling.LANCZOS
    return [(name, each.resize(size, lanczos)) for (name, each), size in zip(tiles, sizes, strict=True)]


if __name__ == "__main__":
    main()
