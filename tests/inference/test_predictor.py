import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2ycbcr

import perceptual
from perceptual.errors import ImageTooLarge, InvalidImage, InvalidOption, OutOfMemory, UnknownStyle, WeightsError
from perceptual.inference.images import Picture, decode
from perceptual.inference.networks import StyleNetwork, SuperResolutionNetwork
from perceptual.inference.predictor import Predictor
from perceptual.inference.resampling import resize_bicubic
from perceptual.options import StyleOptions, UpscaleOptions
from perceptual.settings import parse


@pytest.fixture(scope="module")
def predictor(weights):
    return perceptual.load(weights, device="cpu", engine="eager")


def as_array(image):
    return np.asarray(image, dtype=np.int16)


def test_tensors_in_tensors_out(predictor):
    batch = torch.rand(2, 3, 33, 41)
    out = predictor(batch)
    assert out.shape == batch.shape and out.dtype == torch.float32 and not out.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(out, predictor.network(batch), atol=1e-5, rtol=0)
    assert predictor(batch.double()).dtype == torch.float64


@pytest.mark.parametrize("bad", [torch.rand(3, 8, 8), torch.rand(1, 1, 8, 8), torch.rand(1, 3, 8, 8).byte()])
def test_other_tensors_are_refused(predictor, bad):
    with pytest.raises(ValueError, match="expected a float tensor N×3×H×W, got"):
        predictor(bad)


def test_every_way_to_give_a_photo_gives_the_same(predictor, photo, tmp_path):
    (tmp_path / "photo.png").write_bytes(photo)
    pil = decode(photo).to_pil()
    results = [predictor.stylize(way) for way in (photo, bytearray(photo), pil, tmp_path / "photo.png")]
    results.append(predictor.stylize(str(tmp_path / "photo.png")))
    assert all(result.size == pil.size and result.mode == "RGB" for result in results)
    assert all(np.array_equal(as_array(result), as_array(results[0])) for result in results)
    expected = predictor(decode(photo).rgb[None] / 255)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(as_array(results[0]) - expected).max() <= 0.5 + 1e-3


def test_strength_blends_with_the_photo(predictor, photo):
    original, full = as_array(decode(photo).to_pil()), as_array(predictor.stylize(photo))
    assert np.array_equal(as_array(predictor.stylize(photo, strength=0)), original)
    half = as_array(predictor.stylize(photo, strength=0.5))
    assert np.abs(half - (original + full) / 2).max() <= 1


def test_keep_colors_takes_brightness_alone_from_the_style(predictor):
    # A photo without extremes, so that nothing is clipped and the colours can be kept exactly.
    grey = Image.fromarray((96 + 64 * np.random.default_rng(0).random((40, 40, 3))).astype(np.uint8))
    styled, kept = predictor.stylize(grey), predictor.stylize(grey, keep_colors=True)
    before, full, after = (rgb2ycbcr(np.asarray(image)) for image in (grey, styled, kept))
    inside = (as_array(kept).min(-1) > 0) & (as_array(kept).max(-1) < 255)
    assert inside.mean() > 0.5
    assert np.abs(after - before)[inside][:, 1:].max() < 1.5  # chroma of the photo
    assert np.abs(after - full)[inside][:, 0].max() < 1.5  # luma of the style


@pytest.mark.slow
def test_large_photos_are_stylized_in_bands(predictor):
    torch.manual_seed(0)
    picture = Picture(torch.randint(0, 256, (3, 301, 250), dtype=torch.uint8))
    picture.rgb[:, :150] //= 4
    whole, parts = (
        predictor.stylize_pictures([picture], [StyleOptions(strength=0.8, tile=tile)])[0].rgb.int()
        for tile in (None, 128)
    )
    assert (whole - parts).abs().max() <= 1
    batch = torch.rand(2, 3, 301, 250)
    torch.testing.assert_close(predictor(batch, tile=128), predictor(batch), atol=2e-3, rtol=0)


def test_a_batch_takes_no_more_at_once_than_a_large_photo(predictor, monkeypatch):
    seen = []
    monkeypatch.setattr(predictor.network, "forward", lambda x, style, transform: seen.append(len(x)) or x)
    pictures = [Picture(torch.zeros(3, 64, 128, dtype=torch.uint8))] * 5
    predictor.stylize_pictures(pictures, [StyleOptions(tile=128)] * 5)
    assert seen == [2, 2, 1]


def test_a_gpu_without_enough_memory_gets_smaller_parts(predictor, monkeypatch):
    """A simulated one: it cannot hold more than a number of pixels."""
    sides = []
    within = predictor.run_in_parts

    def run_in_parts(images, styles, side, proceed):
        sides.append(side)
        for part in within(images, styles, side, proceed):
            yield part
            if side > room:  # perhaps in the middle
                raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(predictor, "run_in_parts", run_in_parts)
    photo, room = Image.effect_noise((200, 160), 80), 300
    small = predictor.stylize(photo)
    assert sides == [2048, 1024, 512, 256]
    room = 4096
    assert np.abs(as_array(predictor.stylize(photo)) - as_array(small)).max() <= 1
    room = 300  # and a batch, each photo with its own options
    pictures = [Picture(torch.randint(0, 256, (3, 200, 160), dtype=torch.uint8)) for _ in range(2)]
    wishes = [StyleOptions(strength=1), StyleOptions(strength=0.3)]
    shrunk = predictor.stylize_pictures(pictures, wishes)
    room = 4096
    for one, other in zip(shrunk, predictor.stylize_pictures(pictures, wishes), strict=True):
        assert (one.rgb.int() - other.rgb.int()).abs().max() <= 1
    room = 100
    with pytest.raises(OutOfMemory, match="cpu has too little memory left: send a smaller picture"):
        predictor.stylize(photo)


def test_alpha_and_size_are_kept_and_max_size_reduces(predictor):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 60, 4), dtype=np.uint8))
    result = predictor.stylize(photo)
    assert result.mode == "RGBA" and np.array_equal(as_array(result)[..., 3], as_array(photo)[..., 3])
    assert predictor.stylize(photo, max_size=40).size == (40, 20)


def test_colours_under_what_is_transparent_change_nothing_that_is_seen(predictor, enlarging):
    random = np.random.default_rng(0)
    photo = random.integers(0, 256, (40, 60, 4), dtype=np.uint8)
    photo[..., 3] = np.where(random.random((40, 60)) < 0.5, 0, 255)
    other = photo.copy()
    other[photo[..., 3] == 0, :3] = 0
    for convert in (predictor.stylize, enlarging.upscale):
        assert np.array_equal(*(as_array(convert(Image.fromarray(each))) for each in (photo, other)))


def test_results_of_super_resolution_are_limited_too(enlarging, tmp_path):
    Image.new("L", (4000, 2000)).save(tmp_path / "large.png")
    for photo in (tmp_path / "large.png", Image.new("L", (4000, 2000))):
        with pytest.raises(ImageTooLarge, match="4 times larger 16000×8000"):
            enlarging.upscale(photo)


def test_a_picture_without_pixels_is_refused(predictor):
    with pytest.raises(InvalidImage, match="has no pixels"):
        predictor.stylize(Image.new("RGB", (0, 5)))


def test_a_gpu_that_runs_full_in_histogram_matching_tells_so(enlarging, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("perceptual.inference.predictor.match_channels", full)
    with pytest.raises(OutOfMemory, match="too little memory left"):
        enlarging.upscale(Image.new("RGB", (8, 8)))


def test_results_do_not_depend_on_the_batch(predictor):
    torch.manual_seed(0)
    sizes = [(20, 30), (30, 20), (20, 30), (16, 16), (20, 30)]
    pictures = [Picture(torch.randint(0, 256, (3, *size), dtype=torch.uint8)) for size in sizes]
    options = [StyleOptions(strength=strength) for strength in (1, 0.5, 0.2, 1, 1)]
    together = predictor.stylize_pictures(pictures, options)
    for picture, wish, result in zip(pictures, options, together, strict=True):
        (alone,) = predictor.stylize_pictures([picture], [wish])
        assert (alone.rgb.int() - result.rgb.int()).abs().max() <= 1
    assert predictor.stylize_pictures([], []) == []


def test_bad_input(predictor, weights, tmp_path):
    with pytest.raises(InvalidImage):
        predictor.stylize(b"no image")
    with pytest.raises(InvalidImage, match=r"missing\.jpg"):
        predictor.stylize(tmp_path / "missing.jpg")
    with pytest.raises(InvalidOption, match="strength: expected a number from 0 to 1"):
        predictor.stylize(Image.new("RGB", (8, 8)), strength=5)
    with pytest.raises(WeightsError, match="neither a weights file nor the name"):
        perceptual.load("no_such")
    with pytest.raises(InvalidOption, match="cannot use 'abacus'"):
        perceptual.load(weights, device="abacus")
    with pytest.raises(InvalidOption, match="^device: cannot use 'gpu': expected cpu, cuda, cuda:1, …$"):
        perceptual.load(weights, device="gpu")
    with pytest.raises(InvalidOption, match="engine: expected auto, eager, compile or openvino, got 'steam'"):
        perceptual.load(weights, engine="steam")


# ---- Super-resolution


@pytest.fixture(scope="module")
def enlarging():
    torch.manual_seed(0)
    network = SuperResolutionNetwork(scale=4, init_features=4, num_residuals=1)
    torch.nn.init.normal_(network.layers[-1].weight, std=0.1)
    return Predictor(network.eval(), {}, device="cpu")


def test_enlarges_what_a_photo_is(enlarging, photo):
    result = enlarging.upscale(photo, histogram_matching=False)
    assert (result.size, result.mode) == ((4 * 64, 4 * 48), "RGB")
    expected = enlarging(decode(photo).rgb[None] / 255)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(as_array(result) - expected).max() <= 0.5 + 1e-3


def test_the_histogram_of_low_frequencies_is_matched_by_default(enlarging, photo):
    def distance(result):
        """How far the quantiles of a result are from the photo's, in levels, at most."""
        shares = np.linspace(0.01, 0.99, 50)
        pictures = result, decode(photo).to_pil()
        one, other = (np.quantile(np.asarray(picture), shares, axis=(0, 1)) for picture in pictures)
        return np.abs(one - other).max()

    assert distance(enlarging.upscale(photo, low_frequencies=False)) <= 2
    assert 2 < distance(enlarging.upscale(photo)) < 0.5 * distance(enlarging.upscale(photo, histogram_matching=False))


def test_alpha_is_enlarged_too(enlarging):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 4), dtype=np.uint8)
    result = enlarging.upscale(Image.fromarray(pixels))
    assert result.mode == "RGBA" and result.size == (36, 28)
    alpha = resize_bicubic(torch.from_numpy(pixels[..., 3])[None, None].double(), 4)[0, 0].clamp(0, 255)
    assert np.abs(as_array(result)[..., 3] - alpha.numpy()).max() <= 0.5 + 1e-3


def test_tiles_make_the_same_enlargement(enlarging, photo):
    whole, tiles = (enlarging.upscale(photo, tile=tile, histogram_matching=False) for tile in (None, 128))
    assert np.abs(as_array(whole) - as_array(tiles)).max() <= 1


def test_a_single_pixel_becomes_scale_times_scale(enlarging):
    result = enlarging.upscale(Image.new("RGBA", (1, 1), (10, 200, 30, 128)))
    assert np.array_equal(as_array(result), np.broadcast_to([10, 200, 30, 128], (4, 4, 4)))


def test_pictures_of_several_sizes_each_with_its_own_options(enlarging):
    torch.manual_seed(0)
    pictures = [Picture(torch.randint(0, 256, (3, *size), dtype=torch.uint8)) for size in [(8, 9), (9, 8), (8, 9)]]
    options = [UpscaleOptions(), UpscaleOptions(histogram_matching=False), UpscaleOptions(low_frequencies=False)]
    together = enlarging.upscale_pictures(pictures, options)
    for picture, wish, result in zip(pictures, options, together, strict=True):
        (alone,) = enlarging.upscale_pictures([picture], [wish])
        assert (alone.rgb.int() - result.rgb.int()).abs().max() <= 1


def test_the_fidelity_of_each_picture(blended):
    torch.manual_seed(0)
    upscaler = perceptual.load(blended, "cpu", "eager")
    pictures = [Picture(torch.randint(0, 256, (3, *size), dtype=torch.uint8)) for size in [(8, 9)] * 3 + [(9, 8)]]
    fidelities = [0.0, 1.0, None, 0.3]
    options = [UpscaleOptions(fidelity=each, histogram_matching=False) for each in fidelities]
    for picture, fidelity, result in zip(
        pictures, fidelities, upscaler.upscale_pictures(pictures, options), strict=True
    ):
        network = upscaler.network.settled(0.5 if fidelity is None else fidelity)
        expected = network(picture.rgb[None] / 255)[0] * 255
        assert (result.rgb - expected).abs().max() <= 0.51
    batch = torch.rand(2, 3, 8, 9)
    torch.testing.assert_close(upscaler(batch, fidelity=0.3), upscaler.network.settled(0.3)(batch))
    assert (upscaler(batch, fidelity=0) - upscaler(batch, fidelity=1)).abs().mean() > 0.01


def test_tiles_of_a_fidelity_make_the_same_enlargement(blended, photo):
    upscaler = perceptual.load(blended, "cpu", "eager")
    whole, tiles = (as_array(upscaler.upscale(photo, fidelity=0.2, tile=tile)) for tile in (None, 128))
    assert whole.shape == (96, 128, 3) and np.abs(whole - tiles).max() <= 1


def test_a_network_of_one_set_of_weights_has_no_fidelity(enlarging, blended, photo):
    with pytest.raises(InvalidOption, match="fidelity: this network has one set of weights"):
        enlarging.upscale(photo, fidelity=0.5)
    with pytest.raises(InvalidOption, match="fidelity: expected a number from 0 to 1"):
        perceptual.load(blended, "cpu", "eager").upscale(photo, fidelity=1.5)


def test_weights_of_the_other_task_are_refused(predictor, enlarging, photo):
    with pytest.raises(WeightsError, match="these weights are for style, not for super-resolution"):
        predictor.upscale(photo)
    with pytest.raises(WeightsError, match="these weights are for super-resolution, not for style"):
        enlarging.stylize(photo)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("style", {"fidelity": 0.5}, "fidelity: not an option of style, which this network is for"),
        ("super-resolution", {"grain": 1.0}, "grain: not an option of super-resolution, which this network is for"),
        ("super-resolution", {"style": "none"}, "style: not an option of super-resolution, which this network is for"),
        ("super-resolution", {"stroke": 0.5}, "stroke: not an option of super-resolution, which this network is for"),
        ("super-resolution", {"fidelity": 2}, "fidelity: expected a number from 0 to 1, got '2'"),
        *(
            (task, {"tile": tile}, f"tile: expected a whole number from 128 to 16384, got '{tile}'")
            for task in ("style", "super-resolution")
            for tile in (3, 0, -5)
        ),
    ],
)
def test_tensors_with_options_out_of_range_or_of_the_other_task_are_refused(
    predictor, enlarging, task, options, message
):
    with pytest.raises(InvalidOption, match=f"^{message}$"):
        (predictor if task == "style" else enlarging)(torch.rand(1, 3, 8, 8), **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_agrees_with_cpu(predictor, weights):
    photo = Image.effect_noise((128, 96), 80).convert("RGB")
    difference = as_array(perceptual.load(weights, device="cuda").stylize(photo)) - as_array(predictor.stylize(photo))
    assert np.abs(difference).mean() < 1


@pytest.fixture(scope="module")
def styles():
    """A predictor of three styles at two sizes."""
    torch.manual_seed(0)
    network = StyleNetwork(init_features=4, num_residuals=1, styles=3, sizes=2).eval().requires_grad_(False)
    torch.nn.init.uniform_(network.styles, 0.2, 2)
    names = [{"name": name} for name in ("one", "two", "three")]
    return Predictor(network, {"provenance": {"styles": names}}, device="cpu")


def test_pictures_of_a_batch_have_their_own_styles(styles):
    photo = Picture(torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8))
    texts = ["one", "two:0.5,three:0.5", "three", "two:3,three:3"]
    wishes = [parse(StyleOptions, {"style": text, "stroke": "0.5"}) for text in texts]
    together = styles.stylize_pictures([photo] * 4, wishes)
    for made, wish in zip(together, wishes, strict=True):
        (alone,) = styles.stylize_pictures([photo], [wish])
        assert (made.rgb.int() - alone.rgb.int()).abs().max() <= 1
    assert torch.equal(together[1].rgb, together[3].rgb)
    assert (together[0].rgb.int() - together[2].rgb.int()).abs().float().mean() > 2


def test_a_large_picture_has_the_same_style_in_bands(styles):
    photo = Picture(torch.randint(0, 256, (3, 300, 200), dtype=torch.uint8))
    whole, bands = (
        styles.stylize_pictures([photo], [parse(StyleOptions, {"style": "two:1,one:1", **tile})])[0].rgb.int()
        for tile in ({}, {"tile": "128"})
    )
    assert (whole - bands).abs().max() <= 1


def test_styles_in_python_are_a_name_or_a_mapping(styles):
    photo = Image.effect_noise((50, 40), 80).convert("RGB")
    mixed = styles.stylize(photo, style={"one": 0.6, "two": 0.4})
    assert mixed == styles.stylize(photo, style="one:0.6,two:0.4") != styles.stylize(photo, style="one")
    batch = torch.rand(2, 3, 32, 32)
    assert (styles(batch, style="one") - styles(batch, style="one", stroke=1)).abs().mean() > 0.01


def test_a_style_that_is_none(styles, weights):
    photo = Image.effect_noise((50, 40), 80).convert("RGB")
    with pytest.raises(InvalidOption, match="style is missing; the styles are: one, two, three"):
        styles.stylize(photo)
    for share in (1, 0):
        with pytest.raises(UnknownStyle, match="there is no style 'four' here; the styles are: one, two, three"):
            styles.stylize(photo, style=f"one:1,four:{share}")
    assert styles.stylize(photo, style="one:1,two:0") == styles.stylize(photo, style="one")
    with pytest.raises(InvalidOption, match="stroke: this network has strokes of one size"):
        perceptual.load(weights, "cpu").stylize(photo, stroke=0.5)
    with pytest.raises(WeightsError, match="the weights hold 3 styles and name 1"):
        Predictor(styles.network, {}, device="cpu")
