"""``perceptual demo``: requests one photo in every style that ships, and enlarged, over HTTP."""

import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InvalidOption
from .arguments import working

DESCRIPTION = """Packages the networks that ship as one archive, starts TorchServe with one worker for it, requests a
photo in every style and enlarged, writes the pictures and a contact sheet, and stops the server. What is enlarged is a
reduced copy of the photo: compare the copy, its enlargement and the photo on the sheet, which shows all at one size.

  perceptual demo photo.jpg
"""

ARCHIVE = "demo"
LARGE = 512  # longest side of an enlarged picture, in pixels
HEIGHT = 384  # of the contact sheet's pictures, in pixels


def add_to(subparsers: Any) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser("demo", help="one photo through every network, over HTTP", description=DESCRIPTION)
    parser.add_argument("photo", type=Path, metavar="PHOTO", help="any photo")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"), help="folder (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Runs the demonstration."""
    from ..archives.build import package_collection
    from ..files import write_atomically
    from ..inference import images
    from ..inference.metadata import for_one_collection, shipped_weights
    from ..serving.server import Server

    photo = images.read(args.photo)
    picture = images.decode(photo)  # a bad photo fails here, before the server is started
    chosen = for_one_collection(shipped_weights())
    wanted = requests_for(chosen)
    sheet = args.output / "contact_sheet.jpg"
    if args.photo.resolve() in {each.resolve() for each in (sheet, *(args.output / f"{name}.jpg" for name in wanted))}:
        raise InvalidOption(f"{args.photo} would be overwritten; choose another --output")
    archive, built = package_collection(ARCHIVE, list(chosen.values()), args.output)
    print(f"{'packaged' if built else 'found'} {archive}", flush=True)
    shown = [("photo", photo)]
    with working() as progress:
        server = Server(args.output, [ARCHIVE], port=0, progress=progress)
        with server, server.address.inference() as client:
            print(f"TorchServe is up at {server.address.inference_url}", flush=True)
            for name, options in wanted.items():
                scale = options.get("scale")
                sent = images.encode(images.shrink(picture, LARGE // scale), "png") if scale else photo
                begin = time.perf_counter()
                result = client.predict(sent, ARCHIVE, options)
                shown += [(f"sent to {name}", sent), (name, result)] if scale else [(name, result)]
                target = args.output / f"{name}.jpg"
                write_atomically(target, result)
                print(f"{target}: {time.perf_counter() - begin:.2f} s over HTTP", flush=True)
            progress("stopping TorchServe")
    write_atomically(sheet, sheet_of(shown))
    print(f"stopped TorchServe; all pictures in one: {sheet}", flush=True)
    commands = {
        f"perceptual stylize {args.photo} {example(chosen)} -o out.jpg": "without a server",
        f"perceptual serve --model-store {args.output}": "keep a server running",
        "perceptual learn --help": "learn a style of your own",
    }
    print("\nNext, with the environment active:")
    for command, what in commands.items():
        print(f"  {command:{max(map(len, commands))}}   {what}")


def requests_for(networks: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """The options of a request for every style and every factor of enlargement, by the name of what is requested."""
    from ..inference.metadata import scale_of, styles_in

    wanted: dict[str, dict[str, Any]] = {}
    for name, weights in networks.items():
        for style in styles_in(weights):
            wanted[style["name"]] = {"style": style["name"]}
        if (scale := scale_of(weights)) > 1:
            wanted[name] = {"scale": scale}
    return wanted


def example(networks: Mapping[str, Path]) -> str:
    """Arguments that choose the first style of the first network."""
    from ..inference.metadata import styles_in

    name, weights = next(iter(networks.items()))
    styles = styles_in(weights)
    return f"--model {name}" if len(styles) == 1 else f"--model {name} --style {styles[0]['name']}"


def sheet_of(pictures: Sequence[tuple[str, bytes]]) -> bytes:
    """Encoded pictures of one shape and their names in rows, as a JPEG; each 384 pixels high."""
    from PIL import Image

    from ..inference import images
    from ..inference.sheets import contact_sheet, in_rows

    decoded = [(name, images.Picture(images.decode(each).opaque()).to_pil()) for name, each in pictures]
    photo = decoded[0][1]
    size = round(photo.width * HEIGHT / photo.height), HEIGHT
    tiles = [(name, picture.resize(size, Image.Resampling.LANCZOS)) for name, picture in decoded]
    return images.encode(images.from_pil(contact_sheet(in_rows(tiles))))
