"""Every benchmark at tiny sizes: it runs, and its figures are plausible."""

import hashlib
import json
import textwrap
from functools import partial
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn
from training_fixtures import narrow_vgg

from benchmarks import arithmetic, arrivals, collection, inference, optimization, serving
from benchmarks.__main__ import NAMES, main
from benchmarks.arguments import Size
from benchmarks.catalog import CATALOG, build
from benchmarks.load import Load, generate
from benchmarks.process import in_own_process, in_use, peak
from benchmarks.report import shown
from benchmarks.timing import Spread, alternate
from perceptual.errors import OutOfMemory
from perceptual.inference.networks import StyleNetwork
from perceptual.inference.predictor import load
from perceptual.inference.weights import save_network
from perceptual_training.loss_network import load_loss_network
from perceptual_training.picture_optimization import Step

CPU = torch.device("cpu")


@pytest.fixture
def bench(tmp_path, capsys):
    """Runs a benchmark; gives its tables."""

    def invoke(name, *arguments):
        status = main([name, *map(str, arguments), "-o", str(tmp_path / "out")])
        assert status == 0, capsys.readouterr().err
        content = json.loads((tmp_path / f"out/{name}.json").read_text())
        text = (tmp_path / f"out/{name}.md").read_text()
        assert all(f"## {title}" in text for title in content["tables"]) and text in capsys.readouterr().out
        assert torch.__version__.startswith(content["machine"]["torch"]) and content["benchmark"] == name
        return content["tables"]

    return invoke


@pytest.fixture
def peer(tmp_path):
    """A folder like a checkout of pytorch/examples' fast_neural_style, with other, tiny networks."""
    folder = tmp_path / "peer" / "neural_style"
    folder.mkdir(parents=True)
    (folder / "transformer_net.py").write_text(
        textwrap.dedent("""
            from torch import nn


            class TransformerNet(nn.Conv2d):
                def __init__(self):
                    super().__init__(3, 3, 3, padding=1)
        """)
    )
    (folder / "vgg.py").write_text(
        textwrap.dedent("""
            from collections import namedtuple

            from torch import nn
            from torchvision import models

            Features = namedtuple("Features", "relu1_2 relu2_2 relu3_3 relu4_3")


            class Vgg16(nn.Module):
                def __init__(self, requires_grad):
                    super().__init__()
                    self.layers = models.vgg16(weights="none").features[:2].requires_grad_(requires_grad)

                def forward(self, x):
                    return Features(*[self.layers(x)] * 4)
        """)
    )
    (folder / "utils.py").write_text(
        textwrap.dedent("""
            def gram_matrix(x):
                return x.flatten(2) @ x.flatten(2).mT / x[0].numel()


            def normalize_batch(x):
                return x / 255
        """)
    )
    return folder.parent


def check(spread):
    assert 0 < spread["least"] <= spread["median"] <= spread["most"]
    return spread["median"]


def test_flops_are_those_of_hand_counted_layers():
    layer = nn.Conv2d(3, 5, 9, padding=4, stride=2)
    assert arithmetic.count_flops(layer, (2, 3, 16, 8)) == 2 * (2 * 5 * 8 * 4) * 3 * 9 * 9
    network = StyleNetwork(init_features=4, num_residuals=1, upsampling="transposed")
    ends = 9 * 9 * (3 * 4 + 4 * 3)  # multiplications for a pixel: first and last layer
    reductions = 3 * 3 * (4 * 8 / 4 + 8 * 16 / 16)
    residual_block = 3 * 3 * 2 * 16 * 16 / 16
    enlargements = 3 * 3 * (16 * 8 / 16 + 8 * 4 / 4)
    expected = 2 * 32 * 64 * (ends + reductions + residual_block + enlargements)
    assert arithmetic.count_flops(network, (1, 3, 32, 64)) == expected
    assert next(network.parameters()).device == CPU


@pytest.mark.parametrize("name", CATALOG)
@pytest.mark.slow
def test_every_network_can_be_counted(name):
    few, more = (arithmetic.count_flops(build(name), (count, 3, 64, 64)) for count in (1, 2))
    assert few < more <= 2 * few


def test_ceilings_are_the_best_rates(monkeypatch):
    monkeypatch.setattr(arithmetic, "LARGE", ((8, 16), (16, 16)))
    monkeypatch.setattr(arithmetic, "COPIED", 2**16)
    limits = arithmetic.ceilings(CPU)
    assert set(limits) == {"float32", "bfloat16", "copying"} and all(0 < rate < 1e6 for rate in limits.values())


def test_a_convolution_takes_its_arithmetic_or_its_bytes_whatever_is_more():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, 2))
    work = arithmetic.works(network, (2, 3, 10, 10))
    assert [each.numbers for each in work] == [600 + 216 + 1600, 1600 + 128 + 3200]
    assert [each.flops for each in work] == [2 * 1600 * 27, 2 * 200 * 8 * 16]
    limits = {"float32": 86.4, "bfloat16": 172.8, "copying": 19.712}
    # In float32 the first computes for 1 µs and moves for 0.49, the second computes for 0.59 and moves for 1.
    assert arithmetic.floor(work, limits, "float32") == pytest.approx((2e-6, 0.5))
    assert arithmetic.floor(work, limits, "bfloat16")[0] == pytest.approx(1e-6)
    assert arithmetic.floor(work[:1], limits, "float32") == pytest.approx((1e-6, 0))


def test_ways_take_turns_and_the_first_round_does_not_count():
    calls = []
    seconds = alternate({name: lambda name=name: calls.append(name) for name in "ab"}, 2, CPU)
    assert "".join(calls) == "ababab" and [len(each) for each in seconds.values()] == [2, 2]


def test_ratios_are_of_the_same_round():
    assert Spread.of_ratios([1, 20, 9], [1, 10, 3]) == Spread(2, 1, 3)
    assert shown(Spread(0.12345, 0.1, 1234.5)) == "0.123 (0.1 to 1234)" and shown(7) == "7"


@pytest.mark.slow
def test_a_process_of_its_own_does_not_see_the_memory_of_this_one():
    ballast = torch.ones(2**27)
    now, most = in_use(CPU), peak(CPU)  # in this order: the next line of code may take a page more
    assert most >= now > ballast.nbytes / 2**30
    assert 0.05 < in_own_process(peak, CPU) < most


@pytest.mark.slow
def test_a_killed_process_is_one_clear_error():
    import os

    with pytest.raises(OutOfMemory, match="a process was killed.*choose smaller sizes"):
        in_own_process(os._exit, 1)


@pytest.mark.release
def test_inference_beside_the_peer(bench, peer, monkeypatch):
    monkeypatch.setattr(arithmetic, "LARGE", ((8, 16),))
    arguments = ["--networks", "style-fast", "x8-fast", "--engine", "eager", "--sizes", "32x40", "--batch", 2]
    monkeypatch.setattr(arithmetic, "COPIED", 2**16)
    tables = bench("inference", *arguments, "--repeats", 2, "--peer", peer)
    limits = {row["at best"]: row["rate"] for row in tables["Ceilings"]}
    theirs, ours = tables["Style"]
    (enlarged,) = tables["Super-resolution"]
    assert [row["network"] for row in (theirs, ours, enlarged)] == ["pytorch/examples", "style-fast", "x8-fast"]
    for row in (theirs, ours, enlarged):
        seconds = check(row["seconds"])
        assert (row["image"], row["batch"]) == ("32×40", 2) and row["images/s"] == pytest.approx(2 / seconds)
        assert row["% of float32"] == pytest.approx(100 * row["GFLOP/s"] / limits["float32"])
        assert row["floor, seconds"] > 0 and 0 <= row["bytes, %"] <= 100
        assert 0.1 < row["GiB"] < 2 and 0 < row["GiB added"] < row["GiB"]
    assert theirs["GFLOP/s"] == pytest.approx(2 * (2 * 3 * 40 * 32) * 3 * 9 / theirs["seconds"]["median"] / 1e9)
    assert check(theirs["times as fast"]) == theirs["of its GiB"] == theirs["of its GiB added"] == 1
    assert check(ours["times as fast"]) < 1 and "times as fast" not in enlarged
    assert ours["of its GiB"] == pytest.approx(ours["GiB"] / theirs["GiB"])


def test_images_are_of_the_size_of_the_result():
    for name, shape in {"style-default": (3, 3, 16, 24), "x4-fast": (3, 3, 4, 6), "x8-fast": (3, 3, 2, 3)}.items():
        photos = inference.photos(inference.Way(name, "eager"), Size(24, 16), 3, CPU)
        assert photos.shape == shape and photos.amax() <= 1
        assert build(name)(photos).shape == (3, 3, 16, 24)
    assert 2 < inference.photos(inference.Way("peer", "eager", Path("peer")), Size(24, 16), 1, CPU).amax() <= 255


@pytest.mark.release
def test_memory_of_large_pictures(bench, weights):
    (rows,) = bench("memory", "--model", weights, "--sizes", 64, 300, "--tile", 128).values()
    assert [row["photo"] for row in rows] == ["64²", "300²"]
    assert all(0.1 < row["GiB before"] <= row["GiB at most"] < 2 and row["seconds"] > 0 for row in rows)


def test_training_beside_the_peer(bench, peer, loss_weights, monkeypatch):
    monkeypatch.setattr("torchvision.models.vgg16", narrow_vgg)
    (rows,) = bench("training", "--size", 32, "--batch-size", 2, "--repeats", 2, "--peer", peer).values()
    assert [row["training"] for row in rows][:2] == ["pytorch/examples", "float32"]
    assert check(rows[0]["times as fast"]) == 1
    for row in rows:
        seconds = check(row["seconds"])
        assert row["images/s"] == pytest.approx(2 / seconds) and check(row["times as fast"]) > 0
        parts = [row[part] for part in ("data", "network", "losses", "backward", "optimizer")]
        assert all(part > 0 for part in parts) and sum(parts) < 2 * row["seconds"]["most"]


def test_serving(server, weights, photo):
    plan = serving.Plan(photo, requests=6, longest=60, repeats=2)
    row = serving.measure(server.address, "tiny", load(weights), plan, concurrency=2)
    assert row["concurrent"] == 2
    assert 0 < row["p50"] <= row["p95"] <= row["p99"] and 0 <= row["queued"] < row["p99"]
    shares = [row[f"% {stage}"] for stage in ("decode", "infer", "encode", "server")]
    assert all(0 < share < 100 for share in shares)


def test_a_round_over_http_is_compared_with_the_one_in_process_after_it(monkeypatch):
    # The machine halves its speed in the second round: no ratio of one round may notice.
    def rounds(*rates):
        made = iter([Load(1.0, [1.0]), *(Load(1.0, [1.0] * rate) for rate in rates)])  # after a warm-up
        return lambda *arguments: next(made)

    monkeypatch.setattr(serving, "over_http", rounds(8, 4, 9))
    monkeypatch.setattr(serving, "in_process", rounds(10, 5, 10))
    monkeypatch.setattr(serving, "read_times", lambda *arguments: {})
    stages = dict.fromkeys((*serving.STAGES, "queue"), (0.1, 1))
    monkeypatch.setattr(serving, "times_after", lambda *arguments: stages)
    row = serving.measure(None, "tiny", None, serving.Plan(b"", requests=10, longest=60, repeats=3), concurrency=4)
    assert row["of in process"] == Spread(0.8, 0.8, 0.9)
    assert row["requests/s"] == Spread(8, 4, 9)


def test_load_is_bounded_in_number_and_time(server, photo):
    load = generate(server.address, "tiny", photo, concurrency=3, requests=7, longest=60)
    assert len(load.latencies) == 7 and load.rate == pytest.approx(7 / load.seconds)
    assert max(load.latencies) <= load.seconds <= sum(load.latencies)
    cut = generate(server.address, "tiny", photo, concurrency=2, requests=1000, longest=0.2)
    assert 2 <= len(cut.latencies) < 1000


@pytest.fixture
def small_networks(monkeypatch):
    """Small networks where benchmarks of servers make some of the default preset."""
    for module in (serving, collection):
        monkeypatch.setattr(module, "StyleNetwork", partial(StyleNetwork, init_features=4, num_residuals=1))


def test_arrivals(server, photo):
    row = arrivals.measure(server.address, "tiny", photo, share=0.5, requests=8)
    assert 0 < row["busy"] < 1 and row["work, s"] > 0
    assert row["of work"] == pytest.approx(row["wait, s"] / row["work, s"])


@pytest.mark.slow
def test_video(bench, weights):
    arguments = ("--model", weights, "--size", 64, "--frames", 6, "--repeats", 1, "--lengths", 1)
    speed, memory = bench("video", *arguments).values()
    assert [row["way"] for row in speed] == ["network", "steady off", "steady normal", "steady strong"]
    assert check(speed[0]["times as fast"]) == 1 and all(check(row["frames/s"]) > 0 for row in speed)
    assert memory[0]["frames"] == 25 and 0.1 < memory[0]["GiB at most"] < 3


@pytest.mark.release
def test_bulk(bench):
    (rows,) = bench("bulk", "--size", 32, "--photos", 5, "--actors", 1, "--repeats", 1, "--engine", "eager").values()
    assert [row["command"] for row in rows] == ["stylize", "bulk, 1 actor"]
    assert check(rows[0]["of one process"]) == check(rows[0]["again"]) == 1 and check(rows[1]["again"]) < 1
    assert all(check(row["photos/s"]) > 0 and check(row["first, s"]) > 0 for row in rows)


@pytest.mark.serves
@pytest.mark.release
def test_serving_starts_a_server(bench, small_networks):
    (rows,) = bench(
        *("serving", "--size", 64, "--concurrency", 1, "--requests", 2, "--repeats", 1, "--seconds", 20)
    ).values()
    assert len(rows) == 1 and check(rows[0]["requests/s"]) > 0


@pytest.mark.serves
@pytest.mark.release
def test_collection(bench, small_networks):
    (rows,) = bench("collection", "--styles", 2, "--size", 64, "--repeats", 1, "--concurrency", 2).values()
    assert [row["workers"] for row in rows] == [2, 1]
    assert rows[1]["GiB"] < rows[0]["GiB"] and all(check(row["seconds"]) > 0 for row in rows)


@pytest.mark.parametrize(("most", "expected"), [(3, (2, "yes")), (1, (1, "no"))])
def test_optimization_ends_where_it_is_as_good_as_the_network(monkeypatch, most, expected):
    def optimize(losses, photo, iterations):
        return (Step(done, photo, {"sum": total}) for done, total in enumerate([9.0, 6.0, 5.0, 4.0][: iterations + 1]))

    monkeypatch.setattr(optimization, "figures", lambda *arguments: {"total": 5.0})
    monkeypatch.setattr(optimization, "optimize", optimize)
    row = optimization.measure(MagicMock(), MagicMock(device=torch.device("cpu")), torch.rand(1, 3, 8, 8), most, 1)
    assert (row["iterations"], row["reached"]) == expected


def test_optimization_until_the_losses_are_as_low(bench, tmp_path, photos, painting, loss_weights):
    torch.manual_seed(0)
    file = tmp_path / "stripes.safetensors"
    recipe = {"style_size": 32, "loss_weights": loss_weights.name}
    provenance = {
        "style_image": painting.name,
        "style_image_sha256": hashlib.sha256(painting.read_bytes()).hexdigest(),
        "loss_network": load_loss_network("vgg16", ["relu2_2"], loss_weights)[1],
        "recipe": recipe,
    }
    save_network(file, StyleNetwork(init_features=4, num_residuals=1), provenance)
    options = ["--model", file, "--style-image", painting, "--loss-weights", loss_weights, "--content", photos]
    tables = bench("optimization", *options, "--sizes", 32, 40, "--photos", 2, "--iterations", 3, "--repeats", 1)
    rows, sums = tables["Photos"], tables["Speed-up"]
    assert [row["image"] for row in rows] == ["32²", "32²", "40²", "40²"]
    for row in rows:
        seconds = check(row["network, seconds"])
        assert row["iterations"] <= 3 and (row["reached"] == "yes" or row["iterations"] == 3)
        assert row["times as fast"] == pytest.approx(row["optimization, seconds"] / seconds)
    assert [(row["image"], row["photos"]) for row in sums] == [("32²", 2), ("40²", 2)]
    assert sums[0]["reached"] == sum(row["reached"] == "yes" for row in rows[:2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inference", "--peer", "missing"], "inference: --peer missing is not a checkout of pytorch/examples'"),
        (["training", "--peer", "missing"], "training: --peer missing is not a checkout of pytorch/examples'"),
        (["memory", "--model", "missing"], "memory: missing is neither a weights file nor the name of a"),
        (
            ["optimization", "--model", "x", "--content", "missing", "--loss-weights", "missing"],
            "optimization: there is no folder m",
        ),
        (["memory", "-o", "setup.py"], "memory: --output setup.py: File exists"),
    ],
)
def test_bad_input_is_one_clear_error(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "setup.py").touch()
    assert main(arguments) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inference", "--sizes", "100"], "expected such as 512 or 1920x1080, in multiples of 8, got '100'"),
        (["training", "--repeats", "0"], "expected a whole number of at least 1, got '0'"),
        (["speed"], "there is no command speed"),
        ([], "the following arguments are required: NAME"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and message in line


def test_help_teaches(capsys):
    for arguments in (["--help"], *([name, "--help"] for name in NAMES)):
        with pytest.raises(SystemExit):
            main(arguments)
        said = capsys.readouterr().out
        assert f"  python -m benchmarks {arguments[0] if len(arguments) > 1 else 'inference'}" in said
        assert "--output" in said if len(arguments) > 1 else all(name in said for name in NAMES)


def test_exports(bench, weights):
    options = ("--formats", "torchscript", "--sizes", 64, "--repeats", 1)
    (rows,) = bench("exports", "--models", weights, *options).values()
    assert [row["run by"] for row in rows] == [
        "ours, eager",
        "ours, auto",
        "torchscript, float32",
        "torchscript, float16",
    ]
    assert all(row["MB"] > 0 and row["seconds"]["median"] > 0 for row in rows)
