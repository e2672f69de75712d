"""Pictures side by side on one sheet, with their names."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

Tile = tuple[str, Image.Image]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
LINE = 16  # pixels; height of a line of names
MANY = 16  # pictures; more are shown in longer rows


def contact_sheet(rows: Sequence[Sequence[Tile]], gap: int = 6) -> Image.Image:
    """Lays out pictures in rows on white, each under its name; a row without names takes no space for them.

    Columns are as wide as their widest picture, rows as high as their highest. A name that is too long for its column
    ends with an ellipsis.
    """
    columns = max(map(len, rows))
    widths = [max(row[i][1].width for row in rows if i < len(row)) for i in range(columns)]
    lines = [LINE if any(name for name, _ in row) else 0 for row in rows]
    heights = [max(picture.height for _, picture in row) for row in rows]
    size = sum(widths) + gap * (columns + 1), sum(lines) + sum(heights) + gap * (len(rows) + 1)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    top = gap
    for row, line, height in zip(rows, lines, heights, strict=True):
        left = gap
        for (name, picture), width in zip(row, widths, strict=False):
            draw.text((left, top - 2), shortened(name, width, font), "black", font)
            sheet.paste(picture, (left, top + line))
            left += width + gap
        top += line + height + gap
    return sheet


def shortened(name: str, width: int, font: Font) -> str:
    """A name, or as much of its beginning as fits a width in pixels with an ellipsis after it."""
    shown = name
    while name and font.getlength(shown) > width:
        name = name[:-1]
        shown = f"{name}…"
    return shown


def in_rows(tiles: Sequence[Tile]) -> list[Sequence[Tile]]:
    """Divides pictures into rows of four, or of eight if there are many."""
    length = 4 if len(tiles) <= MANY else 8
    return [tiles[i : i + length] for i in range(0, len(tiles), length)]
