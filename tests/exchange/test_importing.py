import io
import subprocess
import sys
import warnings

import pytest
import torch
from other_projects import ENDINGS, random_weights, stylized
from PIL import Image
from torch import nn
from torchvision.transforms.functional import to_pil_image, to_tensor

import perceptual
from perceptual.archives.build import package
from perceptual.commands import main
from perceptual.inference import engines
from perceptual.inference.metadata import read_metadata
from perceptual.inference.networks import StyleNetwork

pytestmark = pytest.mark.slow  # compares whole pictures of three projects at many sizes

SIZES = [(64, 48), (121, 126)]


def photo_of(*size, number=1):
    """Photos with gradients, edges and noise, N×3×H×W."""
    generator = torch.Generator().manual_seed(1)
    coarse, fine = (torch.rand(number, 3, *each, generator=generator) for each in ((6, 8), size))
    photos = nn.functional.interpolate(coarse, size, mode="bicubic") + (fine - 0.5) / 4
    photos[..., : size[0] // 3, :] *= 0.3
    return photos.clamp(0, 1)


def levels(a, b):
    return ((a - b).abs().max() * 255).item()


def theirs(project, weights, photos):
    with torch.inference_mode():
        return stylized(project, weights, photos)[..., : photos.shape[2], : photos.shape[3]]


@pytest.fixture(scope="module", params=ENDINGS)
def imported(request, tmp_path_factory):
    """A project's name, its weights, and the file that they are imported to."""
    torch.manual_seed(0)
    folder, weights = tmp_path_factory.mktemp(request.param), random_weights(request.param)
    saved = {"state_dict": weights, "style_weight": 4e5} if request.param == "gordicaleksa" else weights
    torch.save(saved, folder / "mosaic.pth")
    target = folder / "mosaic.safetensors"
    assert main(["import", str(folder / "mosaic.pth"), "--licence", "MIT", "-o", str(target)]) == 0
    return request.param, weights, target


@pytest.mark.parametrize("size", SIZES)
def test_an_imported_network_gives_the_same_picture(imported, size):
    project, weights, file = imported
    photos = photo_of(*size, number=2)
    expected = theirs(project, weights, photos)
    assert expected.std() > 0.1
    assert levels(perceptual.load(file, "cpu", engine="eager")(photos), expected) < 1


@pytest.mark.slow
def test_large_pictures_in_bands_are_the_same_too(imported):
    project, weights, file = imported
    photos = photo_of(203, 150)
    found = perceptual.load(file, "cpu", engine="eager")(photos, tile=128)
    assert levels(found, theirs(project, weights, photos)) < 1


def test_its_provenance_says_where_it_comes_from(imported):
    project, _, file = imported
    provenance = read_metadata(file)["provenance"]
    assert (provenance["licence"], provenance["imported"]["from"]) == ("MIT", project)
    assert provenance["imported"]["file"] == "mosaic.pth" and len(provenance["imported"]["sha256"]) == 64
    assert provenance["name"] == "mosaic"


def test_strength_is_that_of_our_own(imported):
    project, weights, file = imported
    photo = to_pil_image(photo_of(60, 52)[0])
    pixels = to_tensor(photo)[None]
    expected = pixels.lerp(theirs(project, weights, pixels), 0.6)
    made = perceptual.load(file, "cpu", engine="eager").stylize(photo, strength=0.6)
    assert levels(to_tensor(made)[None], expected) <= 1


def assert_engine_agrees(engine, project, weights, file, monkeypatch):
    monkeypatch.setattr(engines, "quick_in_bfloat16", lambda device: False)  # in bfloat16 no network is within 1/255
    predictor = perceptual.load(file, "cpu", engine=engine)
    for size in ((96, 64), (67, 101)):
        photos = photo_of(*size)
        assert levels(predictor(photos), theirs(project, weights, photos)) < 1


@pytest.mark.slow
def test_openvino_gives_the_same_picture(imported, monkeypatch):
    pytest.importorskip("openvino")
    assert_engine_agrees("openvino", *imported, monkeypatch)


@pytest.mark.release  # a compilation; make test compiles a network of our own
def test_compiled_it_gives_the_same_picture(compiler, tmp_path, caplog, monkeypatch):
    weights = random_weights("yakhyo", 8, 1)
    torch.save(weights, tmp_path / "a.pth")
    assert main(["import", str(tmp_path / "a.pth"), "--licence", "MIT", "-o", str(tmp_path / "a.safetensors")]) == 0
    assert_engine_agrees("compile", "yakhyo", weights, tmp_path / "a.safetensors", monkeypatch)
    if reasons := [each.getMessage() for each in caplog.records if each.name == engines.__name__]:
        pytest.skip(reasons[0])


@pytest.mark.serves
@pytest.mark.parametrize("imported", ["yakhyo"], indirect=True)  # archives do not know where a network is from
def test_its_archive_is_served(imported, server, management, tmp_path):
    project, weights, file = imported
    named = tmp_path / f"{project}.safetensors"
    named.write_bytes(file.read_bytes())
    archive, _ = package(named, server.model_store)
    management.register(archive.name)
    photo = to_pil_image(photo_of(60, 52)[0])
    with server.address.inference() as client:
        made = Image.open(io.BytesIO(client.stylize(photo, project, format="png")))
    management.unregister(project)
    found, expected = to_tensor(made)[None], theirs(project, weights, to_tensor(photo)[None])
    if engines.quick_in_bfloat16(torch.device("cpu")):  # then it is served in it, a level off at most on average
        assert (found - expected).abs().mean() * 255 < 1
    else:
        assert levels(found, expected) <= 2


def test_old_statistics_are_passed_over(tmp_path, run):
    weights = random_weights("pytorch-examples", 4, 1)
    for key in list(weights):
        norm, _, last = key.rpartition(".")
        if norm.rpartition(".")[2].startswith("in") and last == "weight":
            weights |= {f"{norm}.running_mean": weights[key] * 9, f"{norm}.running_var": weights[key] * 9}
    torch.save(weights, tmp_path / "old.model", _use_new_zipfile_serialization=False)
    status, out, _ = run("import", tmp_path / "old.model", "--licence", "MIT", "-o", tmp_path / "new.safetensors")
    assert status == 0 and "pytorch/examples" in out
    photos, kept = photo_of(40, 44), {key: value for key, value in weights.items() if "running" not in key}
    found = perceptual.load(tmp_path / "new.safetensors", "cpu", engine="eager")(photos)
    assert levels(found, theirs("pytorch-examples", kept, photos)) < 1


def test_repeated_pixels_and_a_convolution_are_one_transposed_convolution():
    torch.manual_seed(0)
    network = StyleNetwork(init_features=4, num_residuals=0, upsampling="nearest", output="linear", multiple=1).eval()
    pad, convolution, *_ = network.decoder[0]
    x = torch.randn(2, 16, 5, 7)
    enlarged = nn.functional.pad(x.repeat_interleave(2, 2).repeat_interleave(2, 3), [1] * 4, mode="reflect")
    torch.testing.assert_close(convolution(pad(x)), nn.functional.conv2d(enlarged, convolution.weight))


# ---- Bad input


class Executed:
    def __reduce__(self):
        return subprocess.check_call, ([sys.executable, "-c", "open('executed', 'w')"],)


def without(weights, part):
    return {key: value for key, value in weights.items() if part not in key}


def quantized(tensor):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but files have it
        return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


def bad_files():
    good = random_weights("pytorch-examples", 4, 1)
    return {
        "another architecture": (
            {"features.0.weight": torch.zeros(3)},
            "not a style network of a supported project",
        ),
        "a missing key": (without(good, "res1.in2.bias"), "res1.in2.bias is missing"),
        "another key": (good | {"attention.weight": torch.zeros(3)}, "attention.weight is unknown"),
        "another kernel": (
            good | {"conv1.conv2d.weight": torch.zeros(4, 3, 7, 7)},
            "has shape 4×3×7×7 instead of 4×3×9×9",
        ),
        "another norm": (good | {"in1.weight": torch.zeros(5)}, "in1.weight has shape 5 instead of 4"),
        "no channels": (good | {"conv1.conv2d.weight": torch.zeros(0, 3, 9, 9)}, "init_features is 0"),
        "no shape": (good | {"conv1.conv2d.weight": torch.tensor(1.0)}, "init_features is 0"),
        "not finite": (good | {"in1.weight": torch.full((4,), torch.nan)}, "styles is not finite"),
        "too large for halves": (
            good | {"in1.weight": torch.full((4,), 1e6)},
            "styles is not finite in half precision",
        ),
        "no tensors": ({"state_dict": [1, 2, 3]}, "holds no weights by name"),
        "no numbers": ({key: value.to("meta") for key, value in good.items()}, "holds no weights by name"),
        "sparse": ({key: value.to_sparse() for key, value in good.items()}, "holds no weights by name"),
        "quantized": (good | {"in1.weight": quantized(good["in1.weight"])}, "holds no weights by name"),
        "nothing": ({}, "it holds none"),
        "code": (Executed(), "could run code when loaded"),
        "a whole network": (nn.Conv2d(3, 3, 1), "could run code when loaded"),
        "rrmina": ({"DeconvBlock.0.conv_transpose.weight": torch.zeros(3)}, "rrmina/fast-neural-style-pytorch"),
    }


@pytest.mark.filterwarnings("error")  # a warning of PyTorch would be a second sentence
@pytest.mark.parametrize("name", bad_files())
def test_a_bad_file_is_one_sentence_and_leaves_nothing(name, tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, message = bad_files()[name]
    torch.save(content, "bad.pth")
    status, out, err = run("import", "bad.pth", "--licence", "MIT")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert message in err and len(err) < 500
    assert [file.name for file in tmp_path.iterdir()] == ["bad.pth"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("wave.t7", b"\4\0\0\0\1\0\0\0", "is of Torch 7"),
        ("wave.ckpt", b"anything", "pads with zeros"),
        ("wave", b"\0" * 40 + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "pads with zeros"),
        ("wave.pth", b"", "was not written by torch.save"),
        ("wave.pth", b"version https://git-lfs.github.com/spec/v1\n", "was not written by torch.save"),
        ("wave.pth", b"PK\3\4" + b"\0" * 90, "is damaged"),
        ("wave.pth", b"\x80\2}q\0.", "is damaged"),
    ],
)
def test_a_file_of_another_kind_is_one_sentence(name, content, message, tmp_path, run):
    (tmp_path / name).write_bytes(content)
    status, _, err = run("import", tmp_path / name, "--licence", "MIT", "-o", tmp_path / "out.safetensors")
    assert status == 1 and err.count("\n") == 1 and message in err
    assert not (tmp_path / "out.safetensors").exists()


def test_a_truncated_file_is_damaged(tmp_path, run):
    buffer = io.BytesIO()
    torch.save(random_weights("yakhyo", 4, 1), buffer)
    (tmp_path / "half.pth").write_bytes(buffer.getvalue()[:-2000])
    status, _, err = run("import", tmp_path / "half.pth", "--licence", "MIT", "-o", tmp_path / "out.safetensors")
    assert status == 1 and err.count("\n") == 1 and "is damaged" in err


def test_what_is_there_already_or_cannot_be_written_is_left(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(random_weights("yakhyo", 4, 1), tmp_path / "a.pth")
    (tmp_path / "a.safetensors").write_bytes(b"precious")
    status, _, err = run("import", tmp_path / "a.pth", "--licence", "MIT", "-o", tmp_path / "a.safetensors")
    assert status == 1 and "already exists" in err and (tmp_path / "a.safetensors").read_bytes() == b"precious"
    inside = tmp_path / "a.pth" / "b.safetensors"
    status, _, err = run("import", tmp_path / "a.pth", "--licence", "MIT", "-o", inside)
    assert status == 1 and err.count("\n") == 1
    assert "cannot be served" in run("import", tmp_path / "a.pth", "--licence", "MIT", "-o", tmp_path / "a b.st")[2]
    assert "--licence" in run("import", tmp_path / "a.pth")[2]
    assert "--licence" in run("import", tmp_path / "a.pth", "--licence", " ")[2]
    assert "there is no file" in run("import", tmp_path / "none.pth", "--licence", "MIT")[2]
