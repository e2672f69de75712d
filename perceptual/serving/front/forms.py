"""Rewrites forms (``multipart/form-data``) so that TorchServe can parse them: it fails on some valid ones."""

from collections import Counter
from collections.abc import Iterable, Iterator, MutableMapping
from email import message_from_bytes
from email.message import Message

from ...options import IMAGE_FIELDS
from .bodies import Body
from .replies import Refusal

MOST_FIELDS = 100  # a photo and its options are about ten
FIELD_HEAD = 4096  # bytes of a field in which its name is looked for
# The type that curl --data-binary gives a photo; TorchServe would parse the photo as a form, and fail.
URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"


def prepare(body: Body, headers: MutableMapping[str, str]) -> None:
    """Changes a request's body and ``Content-Type`` so that TorchServe can parse them.

    Raises:
        Refusal: The form is malformed, or has too many fields, or two of the same name.
    """
    message = Message()
    message["Content-Type"] = headers.get("Content-Type", "")
    if message.get_content_type() == URLENCODED:
        headers["Content-Type"] = "application/octet-stream"
    if message.get_content_type() != MULTIPART:
        return
    boundary = message.get_boundary("")
    if not boundary or '"' in boundary:
        raise bad_form("its Content-Type has no boundary")
    delimiter = b"--" + boundary.encode(errors="surrogateescape")
    found = body.find(b"\r\n" + delimiter, most=MOST_FIELDS + 2)
    no_preamble = body.head(len(delimiter)) == delimiter
    if not no_preamble:
        if not found:
            raise bad_form("its boundary does not occur")
        body.start = found[0] + 2  # a preamble is to be ignored (RFC 2046), but TorchServe fails on it
    if no_preamble + len(found) > MOST_FIELDS + 1:  # one more at the end
        raise bad_form(f"it has more than {MOST_FIELDS} fields")
    starts = [body.start + len(delimiter)] * no_preamble + [place + 2 + len(delimiter) for place in found]
    name, count = Counter(names(body, starts)).most_common(1)[0]
    if count > 1:  # TorchServe would ignore all but one
        if name in IMAGE_FIELDS:
            raise bad_form(f"it has {count} fields with the name {name!r}")
        raise Refusal(422, "form", f"{name[:80]}: expected once, this form has it {count} times", error="InvalidOption")
    headers["Content-Type"] = f'{MULTIPART}; boundary="{boundary}"'


def names(body: Body, starts: Iterable[int]) -> Iterator[str]:
    """The name of the form field at each start; a unique name for a field without one."""
    for start in starts:
        _, _, head = body.read(start, FIELD_HEAD).partition(b"\r\n\r\n")[0].partition(b"\r\n")
        name = message_from_bytes(head).get_param("name", header="content-disposition")
        yield str(name) if name else f"<{start}>"


def bad_form(reason: str) -> Refusal:
    """The reply to a form that cannot be parsed."""
    message = f"this form cannot be parsed: {reason}; send the image as form field data, or as the body"
    return Refusal(400, "form", message, error="InvalidImage")
