from pathlib import Path

import pytest
import torch
import yaml
from ts.model_server import load_properties

from perceptual.archives.build import COLLECTION, HANDLERS
from perceptual.errors import InputError
from perceptual.inference.images import MAX_PIXELS, Picture, encode
from perceptual.serving.configuration import CONFIG, KNOWN, check_size, read_settings, without_effect

ROOT = Path(__file__).parents[2]


def test_every_model_keeps_its_replies_below_the_server_s_limit():
    limit = int(load_properties(str(ROOT / "config.properties"))["max_response_size"])
    models = {file.stem: yaml.safe_load(file.read_text()) for file in ROOT.glob("handlers/*.yaml")}
    assert models.keys() == {*HANDLERS.values(), COLLECTION}
    assert all(model["max_reply"] < limit for model in models.values())


def test_the_largest_request_is_a_number_of_bytes():
    check_size({})
    check_size({"max_request_size": "65535"})
    for size in ("64MB", "", "-1", "1e6"):
        with pytest.raises(InputError, match=f"^max_request_size: expected a number of bytes, got '{size}'$"):
            check_size({"max_request_size": size})


def test_no_worker_is_given_up(server):
    retried = [yaml.safe_load(file.read_text())["maxRetryTimeoutInSec"] for file in ROOT.glob("handlers/*.yaml")]
    with server.address.management() as management:
        told = management.describe("tiny").description["maxRetryTimeoutInSec"]  # it counts milliseconds in 31 bits
    assert {told, *retried} == {2_000_000}


def test_the_largest_stylized_photo_fits_into_a_reply():
    noise = torch.randint(0, 256, (4, 500, 500), dtype=torch.uint8)
    bytes_per_pixel = len(encode(Picture(noise[:3], noise[3:]), "png")) / 500**2
    assert bytes_per_pixel > 4  # it does not compress
    model = yaml.safe_load((ROOT / "handlers/style_transfer.yaml").read_text())
    assert model["max_pixels"] * bytes_per_pixel < model["max_reply"]


def test_as_many_pixels_are_accepted_in_the_server_as_without():
    limits = {yaml.safe_load(file.read_text())["max_pixels"] for file in ROOT.glob("handlers/*.yaml")}
    assert limits == {MAX_PIXELS} == {8192**2}


def test_settings_without_effect_are_named(tmp_path):
    (tmp_path / "own.properties").write_text("# mine\njob_queue_sise=8\njob_queue_size = 8\nload_models=all\n")
    settings = read_settings(tmp_path / "own.properties")
    assert settings == {"job_queue_sise": "8", "job_queue_size": "8", "load_models": "all"}
    assert [*without_effect(settings)] == [
        "TorchServe has no setting job_queue_sise; did you mean job_queue_size?",
        "load_models has no effect: perceptual serve sets it itself (see --port, --sockets, --no-tokens)",
    ]
    assert read_settings(CONFIG).keys() <= KNOWN


def test_a_configuration_that_cannot_be_read_is_one_line(run, tmp_path):
    assert (
        run("serve", "--config", tmp_path / "none")[2]
        == f"perceptual: {tmp_path / 'none'}: No such file or directory\n"
    )
