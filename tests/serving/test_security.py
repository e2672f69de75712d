import io
import shutil
import socket
import zipfile
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from serving_fixtures import Http, altered

from perceptual.errors import ServerError

OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def management(server):
    with server.address.management() as management:
        yield management
    assert management_models(server) == {"tiny": "tiny.mar"}


def management_models(server):
    with server.address.management() as management:
        return management.models()


@pytest.mark.parametrize("authorization", [None, "", "Bearer wrong", "Basic cm9vdDpyb290", "inference"])
def test_management_needs_its_own_token(server, authorization):
    if authorization == "inference":
        authorization = f"Bearer {server.address.tokens('inference').valid()}"
    headers = {} if authorization is None else {"Authorization": authorization}
    with Http(server.address.management_url) as client:
        for method, path in (
            ("GET", "/models"),
            ("GET", "/models/tiny"),
            ("POST", "/models?url=tiny.mar&model_name=evil"),
            ("PUT", "/models/tiny?min_worker=0&max_worker=0"),
            ("PUT", "/models/tiny/1.2/set-default"),
            ("DELETE", "/models/tiny"),
            ("POST", "/workflows?url=evil.war"),
            ("GET", "/token?type=inference"),
        ):
            reply = client.request(method, path, headers=headers)
            assert (reply.status_code, reply.json()["type"]) == (401, "InvalidKeyException"), path
    assert server.healthy()


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "management"])
def test_inference_needs_its_own_token(server, photo, authorization):
    if authorization == "management":
        authorization = f"Bearer {server.address.tokens('management').valid()}"
    headers = OCTETS | ({"Authorization": authorization} if authorization else {})
    for path in ("/predictions/tiny", "/predictions/tiny/1.2", "/models/tiny/invoke", "/v1/models/tiny:predict"):
        reply = Http(server.address.inference_url).post(path, data=photo, headers=headers)
        assert reply.status_code == 401 and not reply.content.startswith(b"\xff\xd8"), path


def test_an_inference_port_manages_nothing(server):
    headers = {"Authorization": f"Bearer {server.address.tokens('management').valid()}"}
    for method, path in (("POST", "/models?url=tiny.mar"), ("DELETE", "/models/tiny")):
        reply = Http(server.address.inference_url).request(method, path, headers=headers)
        assert reply.status_code >= 400
    assert server.healthy()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x.mar", "https://a/x.mar", "file://{}/evil.mar", "s3://a/x.mar"])
def test_nothing_is_registered_from_a_url(server, management, url, tmp_path):
    altered(server.model_store / "tiny.mar", tmp_path / "evil.mar", modelName="evil")  # there is something to be had
    with pytest.raises(ServerError, match="does not match any allowed URL|not a valid model|Model not found"):
        management.send("POST", "/models", params={"url": url.format(tmp_path), "model_name": "evil"})
    assert "evil" not in management.models()


def test_nothing_is_registered_from_outside_the_model_store(server, management, tmp_path):
    outside = altered(server.model_store / "tiny.mar", tmp_path / "evil.mar", modelName="evil")
    link = server.model_store.parent / "evil.mar"
    shutil.copyfile(outside, link)
    for url in (str(outside), "../evil.mar", "sub/../../evil.mar", "..%2fevil.mar"):
        with pytest.raises(ServerError, match="not found|not allowed"):
            management.send("POST", "/models", params={"url": url, "model_name": "evil"})
    link.unlink()


@pytest.mark.parametrize("path", ["../evil.txt", "../../../../../../tmp/evil-{}.txt", "/tmp/evil-{}.txt"])
def test_an_archive_writes_nothing_outside_its_folder(server, management, tmp_path, path):
    path = path.format(tmp_path.name)
    slip = altered(server.model_store / "tiny.mar", server.model_store / "slip.mar", modelName="slip")
    with zipfile.ZipFile(slip, "a") as archive:
        archive.writestr(path, "evil")
    try:
        management.register("slip.mar")
    except ServerError:
        assert path.startswith("..")
    else:  # an absolute path TorchServe takes for one below the archive's own folder
        assert path.startswith("/")
        management.unregister("slip")
    finally:
        slip.unlink()
    folders = [server.folder, server.inner / "tmp", server.inner / "tmp" / "models", server.model_store]
    assert not any((folder / "evil.txt").exists() for folder in folders)
    assert not (server.folder.parent / f"evil-{tmp_path.name}.txt").exists()


def test_a_body_over_the_limit_is_refused_before_it_is_sent(server):
    address = urlsplit(server.address.inference_url)
    token = server.address.tokens("inference").valid()
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        head = f"POST /predictions/tiny HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        connection.sendall(f"{head}Content-Length: {2**28}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert b" 413 " in connection.recv(200)
    assert server.healthy()


def test_a_body_over_the_limit_that_does_not_tell_its_size_is_refused(server, photo):
    pieces = (bytes(2**20) for _ in range(130))  # sent in chunks, without Content-Length
    with server.address.inference() as client:
        with suppress(ServerError):  # or the connection is closed in the middle
            assert client.request("POST", "/predictions/tiny", data=pieces, headers=OCTETS).status_code == 413
        assert client.stylize(photo, "tiny")


@pytest.mark.parametrize("option", ["format", "quality", "strength", "x\r\nX-Evil: 1"])
def test_an_option_cannot_add_headers(server, photo, option):
    evil = "png\r\nX-Evil: 1\r\n\r\nevil"
    with server.address.inference() as client:
        form = {"files": {"data": ("photo.png", photo)}, "data": {option: evil}}
        reply = client.request("POST", "/predictions/tiny", **form)
        assert reply.status_code == 422 and "x-evil" not in reply.headers
        assert reply.json()["error"] == "InvalidOption"
        assert client.stylize(photo, "tiny")


def test_a_filename_or_content_type_cannot_add_headers(server, photo):
    with server.address.inference() as client:
        form = {"files": {"data": ("a.png\r\nX-Evil: 1", io.BytesIO(photo), "image/png; x=1")}}
        reply = client.request("POST", "/predictions/tiny", **form)
        assert reply.status_code == 200 and "x-evil" not in reply.headers
