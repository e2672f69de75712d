"""``perceptual learn``: learns a painting as a style and serves it, in minutes."""

import time
from argparse import Namespace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from ..errors import InputError, InvalidOption, ServerError, TrainingError
from .arguments import add_settings, given, working
from .photos import STYLES

if TYPE_CHECKING:
    from perceptual_training.settings import LearningSettings

    from ..client.addresses import RunningServer

DESCRIPTION = """Learns a painting on a network of many styles, by default the one that ships, adds the style to the
running server, and requests a first picture from it.

  perceptual learn painting.jpg --content-dir photos/
  perceptual learn painting.jpg --content-dir photos/ --name mine --photo me.jpg -o me_in_my_style.jpg

The network's convolutions are not changed: only the scale and shift of its norms are learned, a file of about 10 KB.
By default, sizes and losses are those of the network's own training, without those of steadiness, peaks and grids.

If the style is too weak, double --style-weights; if the photo can no longer be recognized, halve them. If strokes are
too small, raise --style-sizes; if too large, lower them. If flat areas show a pattern, raise --reg-weight tenfold.

The server is the one that `perceptual serve` started last, or the one on --port; it keeps answering requests. Without
a server, only the style file is written.
"""


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    from perceptual_training.settings import DETERMINED, FROM_TRUNK, LearningSettings

    summary = "learn a painting and serve it, in minutes"
    usage = "perceptual learn PAINTING --content-dir PHOTOS [settings]"
    parser = subparsers.add_parser("learn", help=summary, description=DESCRIPTION, usage=usage)
    parser.add_argument("style_image", type=Path, metavar="PAINTING", help="image file of the painting")
    parser.add_argument("--photo", type=Path, help="photo for the first picture; default: one of --content-dir")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the first picture; default: NAME_first.jpg")
    parser.add_argument("--port", type=int, help="the server's inference port; default: the one started last")
    parser.add_argument("--resume", action="store_true", help="continue from the run's checkpoint")
    add_settings(parser, LearningSettings, without=("style_image", *DETERMINED), without_default=FROM_TRUNK)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Learns the style, registers it and requests a picture. Checks before that the server can add the style."""
    from perceptual_training.learning import learn_style, learning_settings, name_of
    from perceptual_training.locks import use_scratch_folder
    from perceptual_training.settings import LearningSettings
    from perceptual_training.task import model_file

    started = time.monotonic()
    use_scratch_folder()
    settings = learning_settings({"trunk": STYLES, **given(args, LearningSettings)})
    file = model_file(settings, name_of(settings))
    output = args.output or Path(f"{file.stem}_first.jpg")  # NAME.jpg may well be the painting
    photo = args.photo or sample(settings)
    server = running(args.port)
    if server is not None:
        check(server, settings.trunk, file, photo, output)
    style = learn_style(settings, resume=args.resume)
    if style is None:
        return 130
    if server is None:
        print(f"{style} is learned. No server is running; to serve it:")
        print(f"  perceptual package {quote(str(settings.trunk))}")
        print("  perceptual serve")  # and not its NAME, which would be the archive without styles learned before
        print(f"  perceptual models register {quote(str(style))}")
        return 0
    serve(server, style, photo, output)
    print(f"{output} is the first picture, {time.monotonic() - started:.0f} s after the start")
    return 0


def sample(settings: "LearningSettings") -> Path:
    """The first training photo that can be read. Raises TrainingError if there is none."""
    from perceptual_training.data import find_photos

    from ..inference import images

    photos: list[Path] = find_photos(settings.content_dir, settings.split)
    for photo in photos:
        try:
            images.load(photo)
        except InputError as error:  # the training passes over such photos too
            reason = error
        else:
            return photo
    raise TrainingError(f"none of the photos in {settings.content_dir} can be read; the last: {reason}")


def running(port: int | None) -> "RunningServer | None":
    """The server on a port, or the one started last. Raises ServerError if a port is given and has no server."""
    from ..client.addresses import find_server

    try:
        return find_server(port)
    except ServerError:
        if port is not None:
            raise
        return None


def check(server: "RunningServer", trunk: Path, style: Path, photo: Path, output: Path) -> None:
    """Raises, before the training, the errors that would otherwise occur after it."""
    from ..inference import images
    from ..inference.styles import read_trunk
    from ..serving.learned import check_place

    check_place(server, read_trunk(trunk).trunk, style)
    images.load(photo)
    if output.exists():
        raise InvalidOption(f"{output} already exists: choose another --output")


def serve(server: "RunningServer", style: Path, photo: Path, output: Path) -> None:
    """Adds a style to a server, and writes a photo that the server has stylized."""
    from ..files import write_atomically
    from ..serving.learned import add_style

    with working() as progress:
        model = add_style(server, style, progress=progress)
    print(f"{style} is served: POST a photo to /predictions/{model.name} with style={style.stem}")
    with working() as progress, server.inference() as client:
        progress("painting the first picture")
        write_atomically(output, client.stylize(photo, model.name, style=style.stem))
