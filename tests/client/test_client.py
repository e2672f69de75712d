from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import ExifTags, Image

from perceptual.client.inference import InferenceClient, encoded, option_headers
from perceptual.client.management import ManagementClient
from perceptual.errors import InputError, InvalidOption
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


@pytest.mark.parametrize(
    "mixture",
    [{"starry_night": 3, "udnie": 1}, (("starry_night", 0.75), ("udnie", 0.25)), [["starry_night", 3], ("udnie", 1)]],
)
def test_a_mixture_may_be_what_a_predictor_takes(mixture):
    assert option_headers({"style": mixture}) == {"X-Style": "starry_night:0.75,udnie:0.25"}
    assert option_headers({"max_size": 512.0}) == {"X-Max-Size": "512"}


@pytest.mark.parametrize(
    "wrong",
    [{"style": ("udnie",)}, {"style": {"udnie": 0}}, {"style": b"udnie"}, {"style": 3}, {"strength": {"udnie": 1}}],
)
def test_a_value_that_a_predictor_refuses_is_not_sent(wrong):
    with pytest.raises(InvalidOption, match=f"^{next(iter(wrong))}: expected a "):
        option_headers(wrong)


def test_a_request_does_not_tell_the_client_s_clock(replies):
    def serve(request):
        assert "X-Request-Start" not in request.headers
        return 200, request.body

    with InferenceClient() as client:
        client.session.mount("http://", replies(serve))
        assert client.stylize(bytearray(b"photo"), "tiny") == b"photo"


@pytest.fixture
def damaged(tmp_path):
    """An opened PNG whose second chunk of pixels has no name."""
    file = tmp_path / "photo.png"
    Image.effect_noise((400, 400), 64).save(file)
    data = file.read_bytes()
    place = data.rindex(b"IDAT")
    assert place > data.index(b"IDAT")
    file.write_bytes(data[:place] + bytes(4) + data[place + 4 :])
    with Image.open(file) as photo:
        yield photo


@pytest.mark.parametrize("photo", [Image.new("RGB", (0, 5)), Image.new("HSV", (5, 0)), "a\0b", "missing.jpg", ""])
def test_what_is_no_photo_is_an_input_error(photo):
    with pytest.raises(InputError, match="^cannot send "):
        encoded(photo)


@pytest.mark.parametrize("photo", [None, 7, ["a.jpg"]])
def test_an_object_that_no_photo_can_be_is_refused_with_those_that_can(photo):
    expected = f"^expected a path, the bytes of an image file, or a PIL image, got {type(photo).__name__}$"
    with pytest.raises(InputError, match=expected):
        encoded(photo)


def test_a_damaged_image_is_an_input_error(damaged):
    with pytest.raises(InputError, match="^cannot send "):
        encoded(damaged)


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
