import pytest

from perceptual.errors import NotAcceptable
from perceptual.worker.parsing import choose_format


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "jpeg"),
        (" , ", "jpeg"),
        ("*/*", "jpeg"),
        ("image/*", "jpeg"),
        ("image/png", "png"),
        ("IMAGE/PNG", "png"),
        ("image/jpg, image/png", "jpeg"),  # no such type, but many send it
        ("image/webp;q=0.5", "webp"),
        ("image/png;q=0.5, image/webp;q=0.8", "webp"),
        ("image/png ; q=0.5 , image/webp ; q=0.4", "png"),
        ("image/jpeg;q=0.1, image/*;q=0.5", "png"),
        ("image/jpeg;q=0, */*", "png"),
        ("image/jpeg;q=0, image/png;q=0.0, */*;q=0.1", "webp"),
        ("image/webp, image/png", "webp"),
        ("image/png, */*", "png"),
        ("text/html, image/png;level=1;q=0.3", "png"),
        ("image/png;q=nonsense, image/webp;q=0.1", "webp"),
        ("image/png;q=nan, image/webp;q=0.1", "webp"),
        ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", "webp"),  # Chrome's, for a picture
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "jpeg"),  # Firefox's, for a page
    ],
)
def test_accept(accept, expected):
    assert choose_format(accept) == expected


@pytest.mark.parametrize("accept", ["application/json", "image/gif, text/*", "*/*;q=0", "image/png;q=-1", "nonsense"])
def test_nothing_acceptable(accept):
    with pytest.raises(NotAcceptable, match="image/jpeg, image/png, image/webp"):
        choose_format(accept)
