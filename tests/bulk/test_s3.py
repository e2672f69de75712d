"""Buckets, at a server of S3's protocol on this machine."""

import time

import boto3
import pytest
import requests
from moto.server import ThreadedMotoServer

from perceptual.bulk.origins import alone, known, note
from perceptual.bulk.places import Place
from perceptual.bulk.planning import divide, find_tasks
from perceptual.errors import InputError, InvalidOption

pytestmark = pytest.mark.serves


@pytest.fixture(scope="module")
def host():
    """Where a server of S3's protocol listens that has a bucket ``photos``."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server.start()
        host = ":".join(map(str, server.get_host_and_port()))
        s3 = boto3.client("s3", endpoint_url=f"http://{host}", region_name="us-east-1")
        s3.create_bucket(Bucket="photos")
        yield host
        server.stop()


@pytest.fixture
def bucket(host):
    """Makes addresses there."""
    return lambda path: f"s3://{path}?scheme=http&endpoint_override={host}"


@pytest.fixture
def strict(host):
    """Has the server look at keys."""
    requests.post(f"http://{host}/moto-api/reset-auth", data="0", timeout=10)
    yield
    requests.post(f"http://{host}/moto-api/reset-auth", data="inf", timeout=10)


def test_a_bucket_is_read_written_and_listed_as_a_folder_is(bucket, photo):
    place = Place.at(bucket("photos/in"))
    place.write(place.below("deep/a.png"), photo)
    place.write(place.below("b.txt"), b"x")
    assert place.read(place.below("deep/a.png")) == photo
    tasks, others = find_tasks([place], Place.at(bucket("photos/out")), "webp")
    assert [(str(task.photo), str(task.result)) for task in tasks] == [("s3://photos/in/deep/a.png", "deep/a.webp")]
    assert [each.name for each in others] == ["b.txt"]


def test_what_was_made_is_noted_in_a_bucket_too(bucket, photo, tmp_path):
    place, output = Place.at(bucket("photos/in")), Place.at(bucket("photos/made"))
    place.write(place.below("a@2x.png"), photo)
    tasks, others = find_tasks([place], output, None)
    with alone(output):
        plan = divide(tasks, others, output, known(output, b"{}"))
        assert plan.missing == tasks
        note(output, plan.origins, b"{}")
    time.sleep(1.1)  # a bucket tells whole seconds, and a result as old as its photo is made again
    output.write(output.below(tasks[0].result), photo)
    plan = divide(tasks, others, output, known(output, b"{}"))
    assert plan.kept[0] == tasks[0]
    assert not known(output, b"others")


def test_a_list_has_photos_of_a_bucket_and_of_this_machine(bucket, photo, tmp_path):
    Place.at(bucket("photos/in")).write("photos/in/b?c#d.png", photo)
    (tmp_path / "a.png").write_bytes(photo)
    (tmp_path / "list.txt").write_text(f"a.png\n{bucket('photos/in/b?c#d.png')}\n")
    tasks, _ = find_tasks([Place.at(str(tmp_path / "list.txt"))], Place.at(str(tmp_path / "out")), None)
    assert [task.photo.path for task in tasks if task.photo.changed] == [str(tmp_path / "a.png"), "photos/in/b?c#d.png"]
    assert str(tasks[1].result) == "photos/in/b?c#d.jpg"


def test_results_among_the_photos_of_a_bucket_are_refused(bucket, photo):
    place = Place.at(bucket("photos/in"))
    place.write(place.below("a.png"), photo)
    with pytest.raises(InvalidOption, match="results in photos/in/out.* would be photos when the job is repeated"):
        find_tasks([place], Place.at(bucket("photos/in/out")), None)


def test_what_is_wrong_with_a_bucket_is_one_sentence(run, bucket, weights, photo, tmp_path):
    (tmp_path / "a.png").write_bytes(photo)
    status, out, err = run("bulk", tmp_path, bucket("nobody/out"), "--model", weights)
    assert (status, out, err) == (
        1,
        "",
        "perceptual: s3://nobody/out: no such bucket: The specified bucket does not exist\n",
    )
    status, out, err = run("bulk", bucket("nobody/in"), tmp_path / "out", "--model", weights)
    assert (status, out, err) == (
        1,
        "",
        "perceptual: s3://nobody/in: there is no such file, folder or bucket\n",
    )
    with pytest.raises(InputError, match=r"^s3://photos/in: network connection: "):
        Place.at("s3://key:secret@photos/in?scheme=http&endpoint_override=127.0.0.1:9").files()


def test_a_bucket_without_permission_is_one_sentence(run, bucket, strict, weights, photo, tmp_path):
    (tmp_path / "a.png").write_bytes(photo)
    for line, named in (
        ((bucket("photos/in"), tmp_path / "out"), "photos/in"),
        ((tmp_path, bucket("photos/out")), "photos/out"),
    ):
        status, out, err = run("bulk", *line, "--model", weights)
        assert (status, out) == (1, "") and err.count("\n") == 1
        assert err.startswith(f"perceptual: s3://{named}: access denied: ")
    assert not (tmp_path / "out").exists()
