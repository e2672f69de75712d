import base64
import io
import json
import re
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from exports import EXPORTS
from PIL import Image

import perceptual
from perceptual.errors import ExportError
from perceptual.exchange import exporting
from perceptual.exchange.exporting import WORK
from perceptual.locks import temporary_folder

GRAIN = 3 * 512**2  # bytes
CANVAS = "document.getElementById('stylized').toDataURL('image/png')"
GUIDE = (Path(__file__).parents[2] / "docs/export.md").read_text()


def runner(name, file):
    """What runs a file by its runtime alone, as a user would."""
    format = EXPORTS[name][0]
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file)
        return lambda **inputs: session.run(None, inputs)[0]
    if format == "openvino":
        import openvino

        engine = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda **inputs: engine(inputs)[0]
    network = torch.jit.load(file)
    return lambda **inputs: network(*map(torch.from_numpy, inputs.values())).numpy()


@pytest.mark.parametrize("name", EXPORTS)
def test_an_exported_file_gives_the_same_pictures_at_any_size(name, networks, exported):
    file = exported(name)
    run, network = runner(name, file), EXPORTS[name][2]
    predictor = perceptual.load(networks / f"{network}.safetensors", "cpu", engine="eager")
    table = file.with_suffix(".styles.json")
    options = {"style": {"starry_night": 3, "udnie": 1}, "stroke": 0.5} if "mixture" in name else {}
    if "crisp" in name:
        options = {"fidelity": 0.25}
    if "no grain" in name:
        options["grain"] = 0
    one_colour = torch.tensor([0.3, 0.6, 0.5]).view(1, 3, 1, 1).expand(1, 3, 48, 64)
    sizes = (1, 33, 70), (3, 48, 64), (1, 5, 18), (2, 101, 20), (1, 530, 20)  # grain repeats after 512 px
    for photos in (one_colour, *(torch.rand(count, 3, *size) for count, *size in sizes)):
        count = len(photos)
        inputs = {"images": photos.numpy()}
        if "styles" in name:
            numbers = json.loads(table.read_text())
            inputs["style"] = np.float32([numbers["the_scream"][1]] * count)
            options = {"style": "the_scream", "stroke": 1}
        made = run(**inputs)
        # Of one colour, norms amplify even float32's rounding.
        assert np.abs(made - predictor(photos, **options).numpy()).max() * 255 < (4 if photos is one_colour else 1)
        assert made.dtype == np.float32
    assert table.exists() == ("styles" in name)


def metadata(name, file):
    format = EXPORTS[name][0]
    if format == "onnx":
        import onnxruntime

        return onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
    if format == "openvino":
        import openvino

        model = openvino.Core().read_model(file)
        return {key: model.get_rt_info(["perceptual", key]).astype(str) for key in ("name", "licence", "provenance")}
    extra = {"perceptual.json": ""}
    torch.jit.load(file, _extra_files=extra)
    return json.loads(extra["perceptual.json"])


@pytest.mark.parametrize("name", ["onnx, styles", "openvino, x4, half", "torchscript, mixture", "onnx, mixture, half"])
def test_metadata_are_inside(name, exported):
    found = metadata(name, exported(name))
    assert found["name"] == EXPORTS[name][2] and found["licence"] == "Apache-2.0"
    assert json.loads(found["provenance"])["licence"] == "Apache-2.0"
    if "mixture" in name:
        baked = {"style": {"starry_night": 0.75, "udnie": 0.25}, "stroke": 0.5, "grain": 0.5, "float16": "half" in name}
        assert json.loads(found["options"]) == baked


def test_the_fidelity_is_among_the_metadata(exported):
    found = metadata("onnx, x2, crisp", exported("onnx, x2, crisp"))
    assert json.loads(found["options"]) == {"fidelity": 0.25, "float16": True}
    assert json.loads(found["config"])["blended"] is False


def test_no_path_of_this_machine_is_inside(exported):
    content = exported("onnx, styles").read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in content and b"site-packages" not in content


def test_float16_makes_the_file_smaller(exported):
    half, whole = (exported(name) for name in ("torchscript, styles, half", "torchscript, mixture"))
    kept = [sum(each.numel() * each.element_size() for each in torch.jit.load(f).parameters()) for f in (half, whole)]
    assert kept[0] < 0.75 * kept[1]  # the enlarging convolutions are whole
    half, whole = (exported(name).stat().st_size for name in ("onnx, mixture, half", "onnx, styles"))
    assert half - GRAIN < 0.8 * (whole - GRAIN)  # of small networks, much else is the graph


def block(language):
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    return found


def test_the_guide_s_python_makes_our_picture(networks, exported, photo, tmp_path):
    file = exported("onnx, styles")
    for each in (file, file.with_suffix(".styles.json")):
        (tmp_path / each.name).write_bytes(each.read_bytes())
    (tmp_path / "photo.jpg").write_bytes(photo)
    done = subprocess.run([sys.executable, "-c", block("python")], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Apache-2.0\n"
    ours = perceptual.load(networks / "styles.safetensors", "cpu", engine="eager")
    expected = ours.stylize(photo, style="starry_night:0.6,udnie:0.4")
    found = Image.open(tmp_path / "stylized.png")
    assert np.abs(np.int16(found) - np.int16(expected)).max() <= 1


def test_the_guide_s_page_makes_our_picture(networks, exported, photo, web_runtime, site, page):
    folder, address = site
    (folder / "index.html").write_text(block("html"))
    (folder / "photo.png").write_bytes(photo)
    shutil.copy(exported("onnx, mixture, half"), folder / "starry_night.onnx")
    (folder / "dist").symlink_to(web_runtime)
    troubles = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(address)
    page.wait_for_function("document.title == 'done'", timeout=120_000)
    assert not troubles
    content = base64.b64decode(page.evaluate(CANVAS).partition(",")[2])
    found = Image.open(io.BytesIO(content)).convert("RGB")
    ours = perceptual.load(networks / "styles.safetensors", "cpu", engine="eager")
    expected = ours.stylize(photo, style="starry_night:3,udnie:1", stroke=0.5)
    assert np.abs(np.int16(found) - np.int16(expected)).max() <= 1


def test_the_guide_s_triton_configuration_fits(exported):
    import onnxruntime

    session = onnxruntime.InferenceSession(exported("onnx, styles"))
    configuration = GUIDE[GUIDE.index("platform:") :]
    for tensor in (session.get_inputs()[0], session.get_outputs()[0]):
        assert f'name: "{tensor.name}" data_type: TYPE_FP32 dims: [ 3, -1, -1 ]' in configuration
        assert tensor.type == "tensor(float)" and tensor.shape[1] == 3
        assert all(isinstance(tensor.shape[i], str) for i in (0, 2, 3))  # any number and size
    assert session.get_inputs()[1].name == "style" and '{ name: "style" data_type: TYPE_FP32 dims:' in configuration


def test_triton_takes_the_guide_s_configuration():
    model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    text = GUIDE[GUIDE.index('name: "starry_night"') :].partition("```")[0]
    found = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert [list(each.dims) for each in (*found.input, *found.output)] == [[3, -1, -1]] * 2
    assert found.HasField("dynamic_batching") and found.max_batch_size == 8


# ---- What a killed export leaves


@pytest.mark.slow
def test_the_next_export_removes_what_a_killed_one_left_and_nothing_else(networks, tmp_path):
    (tmp_path / f"{WORK}mine").mkdir()
    (tmp_path / f"{WORK}mine" / "notes.txt").write_text("kept")
    with temporary_folder(tmp_path, WORK) as in_use:
        exporting.export(networks / "x4.safetensors", "torchscript", tmp_path / "a.pt")
        left = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
        assert left.stdout.read(5) == b"ready"
        left.kill()
        left.wait()
        assert len([*tmp_path.glob(f"{WORK}*")]) == 3
        exporting.export(networks / "x4.safetensors", "torchscript", tmp_path / "a.pt")
        assert {each.name for each in tmp_path.iterdir()} == {"a.pt", f"{WORK}mine", in_use.parent.name}
    assert {each.name for each in tmp_path.iterdir()} == {"a.pt", f"{WORK}mine"}


HOLDER = f"""
import sys, time
from pathlib import Path
from perceptual.locks import temporary_folder
with temporary_folder(Path(sys.argv[1]), {WORK!r}) as folder:
    (folder / "a.onnx").write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


# ---- Refused


def test_a_file_that_gives_another_picture_is_not_written(networks, tmp_path, monkeypatch):
    def wrong(*arguments, **options):
        made = true(*arguments, **options)
        made.leak = 0.0
        return made

    true = exporting.portable
    monkeypatch.setattr(exporting, "portable", wrong)
    with pytest.raises(ExportError, match="differ from ours by .* levels of 255"):
        exporting.export(networks / "styles.safetensors", "torchscript", tmp_path / "a.pt")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("network", "more", "message"),
    [
        ("styles", ["--style", "monet"], "there is no style 'monet' here; the styles are: starry_night"),
        ("styles", ["--stroke", "0.5"], "style is missing"),
        ("imported", ["--stroke", "0.5"], "strokes of one size"),
        ("x4", ["--grain", "0.5"], "a network for super-resolution has none"),
        ("x4", ["--style", "udnie"], "style: a network for super-resolution has none"),
        ("x4", ["--stroke", "1"], "stroke: a network for super-resolution has none"),
        ("none", [], "is neither a weights file nor the name"),
    ],
)
def test_a_wrong_wish_is_one_sentence(network, more, message, networks, tmp_path, run):
    model = networks / f"{network}.safetensors"
    status, out, err = run("export", model, "--format", "torchscript", "-o", tmp_path / "a.pt", *more)
    assert (status, out) == (1, "") and message in err.splitlines()[-1]
    assert not any(tmp_path.iterdir())


def test_an_unwritable_target_is_one_sentence(networks, tmp_path, run):
    (tmp_path / "file").write_text("kept")
    for output, message in (
        (tmp_path / "file" / "a.pt", "file"),
        (tmp_path, "is a folder"),
        (tmp_path / "a.onnx", "name a file that ends in .pt"),
    ):
        status, _, err = run("export", networks / "x4.safetensors", "--format", "torchscript", "-o", output)
        assert status == 1 and message in err.splitlines()[-1]
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@contextmanager
def files_of_at_most(size):
    """As on a full disk, no file can be larger than this, in bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_leaves_nothing(networks, tmp_path, run):
    with files_of_at_most(10_000):
        status, out, err = run(
            "export", networks / "x4.safetensors", "--format", "torchscript", "-o", tmp_path / "a.pt"
        )
    assert (status, out) == (1, "") and "File too large" in err.splitlines()[-1]
    assert not any(tmp_path.iterdir())


def test_a_disk_that_openvino_fills_is_a_sentence(exported, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    from perceptual.exchange import onnx, openvino

    content = exported("onnx, styles").read_bytes()
    monkeypatch.setattr(onnx, "write", lambda network, example, facts, path, half: path.write_bytes(content))
    with (
        files_of_at_most(len(content)),
        pytest.raises(ExportError, match="a.xml cannot be written: .* Is the disk full"),
    ):
        openvino.write(None, {}, {"name": "x" * len(content)}, tmp_path / "a.xml", half=False)
