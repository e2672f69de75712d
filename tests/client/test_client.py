from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import ExifTags, Image

from perceptual.client.inference import encoded, option_headers
from perceptual.client.management import ManagementClient
from perceptual.inference import images


def test_models_are_listed_over_all_pages(replies):
    def serve(request):
        (start,) = map(int, parse_qs(urlsplit(request.url).query)["next_page_token"])
        page = {"models": [{"modelName": f"m{start}", "modelUrl": f"m{start}.mar"}]}
        return 200, page | ({"nextPageToken": str(start + 1)} if start < 2 else {})

    with ManagementClient() as client:
        client.session.mount("http://", replies(serve))
        assert client.models() == {"m0": "m0.mar", "m1": "m1.mar", "m2": "m2.mar"}


def test_options_become_headers():
    headers = option_headers({"strength": 0.5, "keep_colors": True, "max_size": None, "format": " ä\n"})
    assert headers == {"X-Strength": "0.5", "X-Keep-Colors": "True", "X-Format": r"\xe4\n"}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I", "PA", "RGBX", "CMYK", "F", "HSV", "RGBa", "La"])
def test_a_photo_of_any_mode_is_sent_with_no_more_than_how_it_was_held(mode):
    photo = Image.new(mode, (8, 6))
    photo.getexif()[ExifTags.Base.Orientation] = 6
    photo.getexif()[ExifTags.Base.XResolution] = "no number"  # what Pillow fails to write
    assert images.decode(encoded(photo)).rgb.shape == (3, 8, 6)


@pytest.mark.parametrize("orientation", (1, 3, 6, 8))
@pytest.mark.parametrize("format", ("TIFF", "JPEG", "PNG"))
def test_an_opened_photo_is_sent_upright_once(format, orientation, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = tmp_path / f"photo.{format.lower()}"
    Image.linear_gradient("L").crop((0, 0, 60, 40)).convert("RGB").save(file, exif=exif)
    with Image.open(file) as photo:
        sent = images.decode(encoded(photo)).rgb
    expected = images.decode(file.read_bytes()).rgb
    assert sent.shape == expected.shape and (sent.int() - expected.int()).abs().max() <= 1
