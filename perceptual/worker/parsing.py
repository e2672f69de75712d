"""Parses a request: its image, its options, and the format that it accepts."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidImage, NotAcceptable
from ..options import FORMATS, IMAGE_FIELDS, CollectionOptions
from ..settings import option_name, settings_of

HOW_TO_SEND = "send the image itself: curl -T photo.jpg URL, or as form field data: curl -F data=@photo.jpg URL"


def find_image(row: Any) -> bytes | bytearray:
    """The image in a request. Raises InvalidImage if there is none, or text or JSON in its place."""
    fields = row if isinstance(row, Mapping) else {}
    found = [fields[name] for name in IMAGE_FIELDS if fields.get(name) is not None]
    if len(found) > 1:
        raise InvalidImage(f"there are two images in the request, as {' and '.join(IMAGE_FIELDS)}; {HOW_TO_SEND}")
    data = found[0] if found else None
    if data is None:
        raise InvalidImage(f"there is no image in the request; {HOW_TO_SEND}")
    if not isinstance(data, bytes | bytearray) or data[:64].lstrip()[:1] in (b"{", b"["):
        raise InvalidImage(f"the body is {'text' if isinstance(data, str) else 'JSON'}; {HOW_TO_SEND}")
    return data


def option_values(headers: Mapping[str, str], fields: Mapping[str, Any]) -> dict[str, Any]:
    """A request's options by name: its ``X-`` headers of known names, overridden by the fields of its form.

    Names of options of all models are known, so that an option that this model does not have is refused, not ignored.

    Args:
        headers: By name in lower case.
        fields: The form's fields, including the image.
    """
    names = [option_name(each) for each in settings_of(CollectionOptions)]
    from_headers = {name: headers[f"x-{name}"] for name in names if f"x-{name}" in headers}
    from_fields = {name: as_text(value) for name, value in fields.items() if name not in IMAGE_FIELDS}
    return from_headers | from_fields


def as_text(value: Any) -> Any:
    """A form field as text; a value that TorchServe has already parsed is not changed."""
    return value.decode(errors="replace") if isinstance(value, bytes | bytearray) else value


def choose_format(accept: str) -> str:
    """The format that an ``Accept`` header prefers; jpeg if it has no preference.

    Raises:
        NotAcceptable: It accepts none of :data:`perceptual.options.FORMATS`.
    """
    ranges = [parse_range(text) for text in accept.split(",") if text.strip()] or [("*/*", 1.0)]
    ranks = {format: rank(format, ranges) for format in FORMATS}
    best = max(FORMATS, key=lambda format: ranks[format])
    if not ranks[best]:
        raise NotAcceptable(f"Accept leaves none of {', '.join(f'image/{format}' for format in FORMATS)}")
    return best


def rank(format: str, ranges: Sequence[tuple[str, float]]) -> tuple[float, ...]:
    """Preference for a format, comparable; empty if it is not acceptable.

    The quality of the most specific matching range counts (RFC 9110, 12.5.1). Ties are broken by specificity, then by
    order: the standard leaves this open, but clients expect it.
    """
    for exactness, pattern in ((2, f"image/{format}"), (1, "image/*"), (0, "*/*")):
        for place, (name, quality) in enumerate(ranges):
            if name == pattern:
                return (quality, exactness, -place) if quality > 0 else ()
    return ()


def parse_range(text: str) -> tuple[str, float]:
    """Media type and quality of one part of an ``Accept`` header; an invalid quality counts as 0."""
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    name = {"image/jpg": "image/jpeg"}.get(name, name)  # no such type, but many send it
    quality = next((each[2:] for each in parameters if each.startswith("q=")), "1")
    return name, float(quality) if re.fullmatch(r"\d+\.?\d*", quality) else 0.0
