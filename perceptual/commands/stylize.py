"""``perceptual stylize``: photos through a network, without a server."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from ..errors import InputError, InvalidOption
from ..options import StyleOptions
from ..settings import parse
from .arguments import add_settings, given, report

DESCRIPTION = """Stylizes photos without a server.

  perceptual stylize photo.jpg --model starry_night -o stylized.jpg
  perceptual stylize holiday/ --model models/mine.safetensors -o stylized/ --strength 0.7

A file that cannot be read is reported and skipped; the exit status is then 1.
"""

SUFFIXES = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}
READABLE = (*SUFFIXES, ".bmp", ".gif", ".tif", ".tiff")


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("stylize", help="stylize photos without a server", description=DESCRIPTION)
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO", help="image files, or folders of them")
    parser.add_argument("--model", required=True, help="a weights file, or the name of a network that ships")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="a file for one photo, else a folder"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, …; default: a GPU if any")
    add_settings(parser, StyleOptions)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Stylizes every photo; returns 1 if one failed."""
    options = parse(StyleOptions, given(args, StyleOptions))
    jobs = plan(args.photos, args.output, options.format)

    from rich.progress import track

    from ..predictor import load

    predictor = load(args.model, args.device)
    failures = 0
    for source, target in track(jobs, "stylizing", disable=len(jobs) < 2, transient=True):
        try:
            stylize(predictor, source, target, options)
        except (InputError, OSError) as error:
            failures += 1
            report(f"{source}: {error}")
    print(f"{len(jobs) - failures} of {len(jobs)} photos stylized, in {args.output}")
    return 1 if failures else 0


def stylize(predictor: Any, source: Path, target: Path, options: StyleOptions) -> None:
    """Stylizes one file into another, whose suffix says the format."""
    from .. import images
    from ..weights import write_atomically

    (picture,) = predictor.stylize_pictures([images.decode(images.read(source))], [options])
    write_atomically(target, images.encode(picture, SUFFIXES[target.suffix.lower()], options.quality))


def plan(photos: list[Path], output: Path, format: str | None) -> list[tuple[Path, Path]]:
    """Pairs every photo with the file its result goes to.

    Raises:
        InvalidOption: The output does not fit the photos, or a result would overwrite a photo or another result.
    """
    if len(photos) == 1 and not photos[0].is_dir() and output.suffix and not output.is_dir():
        if output.suffix.lower() not in SUFFIXES:
            raise InvalidOption(f"{output}: the name of the result must end in {', '.join(SUFFIXES)}")
        if format and SUFFIXES[output.suffix.lower()] != format:
            raise InvalidOption(f"{output}: its ending contradicts --format {format}")
        jobs = [(photos[0], output)]
    else:
        if output.is_file() or output.suffix.lower() in SUFFIXES:
            raise InvalidOption(f"{output}: several photos need a folder to go to")
        suffix = {None: ".jpg", "jpeg": ".jpg"}.get(format, f".{format}")
        jobs = [
            (file, (output / relative).with_suffix(suffix)) for photo in photos for file, relative in photos_in(photo)
        ]
    if not jobs:
        raise InvalidOption(f"no images in {photos[0]}; looked for {' '.join(READABLE)}")
    sources = {source.resolve() for source, _ in jobs}
    taken: dict[Path, Path] = {}
    for source, target in jobs:
        if target.resolve() in sources:
            raise InvalidOption(f"{target} would overwrite a photo; choose another --output")
        if other := taken.get(target):
            raise InvalidOption(f"{other} and {source} would both go to {target}; stylize them one by one")
        taken[target] = source
    return jobs


def photos_in(path: Path) -> list[tuple[Path, Path]]:
    """A file, or the images anywhere below a folder, each with the name it keeps in the output."""
    if not path.is_dir():
        return [(path, Path(path.name))]
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in READABLE and file.is_file())
    return [(file, file.relative_to(path)) for file in files]
