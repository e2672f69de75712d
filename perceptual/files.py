"""Files: written as a whole or not at all, and which are images, by their names."""

import os
from pathlib import Path

EXTENSIONS = (".avif", ".bmp", ".gif", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def images_below(folder: Path) -> list[Path]:
    """All image files in a folder or anywhere below it, sorted by path."""
    return sorted(path for path in folder.rglob("*") if is_image(path) and path.is_file())


def is_image(path: Path) -> bool:
    """Whether a name is an image's, and not that of what macOS keeps beside one on other file systems."""
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith("._")


def write_atomically(path: str | Path, content: bytes) -> None:
    """Writes a whole file or leaves the old one untouched; makes the folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
