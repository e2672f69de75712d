"""``perceptual gallery``: shows photos in every style, on one sheet."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidOption
from ..options import StyleOptions
from ..settings import Integer, parse
from .arguments import converter
from .photos import STANDARD, STYLES, SUFFIXES, add_machine, check_outside, check_writable, photos_among

if TYPE_CHECKING:
    from PIL import Image

    from ..inference.images import Picture
    from ..inference.predictor import Predictor

    Style = tuple[str, Predictor, StyleOptions]

DESCRIPTION = """Shows photos in every style of the networks, on one sheet with the styles' names.

  perceptual gallery photo.jpg -o sheet.jpg
  perceptual gallery one.jpg two.jpg -o sheet.png --models styles mine

One photo fills the sheet in rows; several have a row each.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("gallery", help="photos in every style, on one sheet", description=DESCRIPTION)
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO", help="image files, or folders of them")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="file of the sheet")
    parser.add_argument(
        "--models", nargs="+", metavar="MODEL", default=[STYLES], help=f"weights files or names (default: {STYLES})"
    )
    parser.add_argument(
        "--size",
        type=converter(Integer(16)),
        default=384,
        help="longest side of a picture, in pixels (default: %(default)s)",
    )
    add_machine(parser)
    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Makes the sheet."""
    if args.output.suffix.lower() not in SUFFIXES:
        raise InvalidOption(f"{args.output}: the name of the sheet must end in {', '.join(SUFFIXES)}")
    if STANDARD in args.photos:
        raise InvalidOption("- does not work here; name image files, or folders of them")
    files = [file for file, _ in photos_among(args.photos)]
    if args.output.resolve() in {file.resolve() for file in files}:
        raise InvalidOption(f"{args.output} would overwrite a photo; choose another --output")
    check_outside(args.output, args.photos)
    check_writable([args.output.parent])

    from ..files import write_atomically
    from ..inference import images
    from ..inference.metadata import find_distinct
    from ..inference.predictor import load

    photos = [images.shrink(images.load(file), args.size) for file in files]
    chosen = find_distinct(args.models)
    predictors = {name: load(file, args.device, args.engine) for name, file in chosen.items()}
    styles = styles_of(predictors)
    sheet = gallery(photos, styles)
    write_atomically(args.output, images.encode(images.from_pil(sheet), SUFFIXES[args.output.suffix.lower()]))
    print(f"{args.output} (photos: {len(photos)}, styles: {len(styles)})")


def styles_of(predictors: Mapping[str, "Predictor"]) -> list["Style"]:
    """All styles of some networks, with their names; that of a network of one style is the network's.

    Raises:
        WeightsError: A network is for another task.
    """
    styles = []
    for name, predictor in predictors.items():
        predictor.require("style")
        if len(predictor.styles) == 1:
            styles.append((name, predictor, StyleOptions()))
        else:
            styles += [(each, predictor, parse(StyleOptions, {"style": each})) for each in predictor.styles]
    return styles


def gallery(photos: Sequence["Picture"], styles: Sequence["Style"]) -> "Image.Image":
    """A sheet of photos, each in every style."""
    from ..inference.images import Picture
    from ..inference.sheets import contact_sheet, in_rows

    rows = []
    for photo in photos:
        styled = [(name, each.stylize_pictures([photo], [options])[0]) for name, each, options in styles]
        rows.append([(name, Picture(each.opaque()).to_pil()) for name, each in [("photo", photo), *styled]])
    if len(rows) == 1:
        return contact_sheet(in_rows(rows[0]))
    return contact_sheet([rows[0], *([("", picture) for _, picture in row] for row in rows[1:])])
