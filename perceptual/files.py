"""Which files are images, by their names."""

from pathlib import Path

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def images_below(folder: Path) -> list[Path]:
    """All image files in a folder or anywhere below it, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
