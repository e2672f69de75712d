import json
from datetime import datetime, timedelta, timezone

import httpx
import pytest

from perceptual.client.connection import Client, Tokens, error_of
from perceptual.errors import ImageTooLarge, InputError, ServerError

REFUSED = httpx.Response(400, json={"code": 400, "type": "InvalidKeyException", "message": "Token …"})


class KeyFile:
    """The key file of a server with tokens ``key-1``, ``key-2``, …."""

    def __init__(self, path):
        self.path = path
        self.serial = 0
        self.renew(3600)

    def renew(self, seconds):
        self.serial += 1
        expiry = datetime.now(timezone.utc) + timedelta(seconds=seconds)
        entry = {"key": f"key-{self.serial}", "expiration time": expiry.strftime("%Y-%m-%dT%H:%M:%S.123456789Z")}
        self.path.write_text(json.dumps({"management": entry, "inference": entry, "API": {"key": "api"}}))


@pytest.fixture
def keys(tmp_path):
    return KeyFile(tmp_path / "key_file.json")


def send(keys, reply):
    """Sends one request with a token; returns its reply and the authorizations and paths that the server saw."""
    seen = []

    def serve(request):
        seen.append((request.headers["Authorization"], request.url.path))
        return reply(request)

    with httpx.Client(transport=httpx.MockTransport(serve), auth=Tokens(keys.path, "inference", "http://m")) as http:
        return http.get("http://i/ping"), seen


def test_a_valid_token_is_used_as_it_is(keys):
    _, seen = send(keys, lambda request: httpx.Response(200))
    assert seen == [("Bearer key-1", "/ping")]


def test_a_token_near_its_end_is_renewed_first(keys, monkeypatch):
    keys.renew(60)

    def renew(client, method, path, params, headers):
        assert (method, str(client.http.base_url), path, params) == ("GET", "http://m", "/token", {"type": "inference"})
        assert headers == {"Authorization": "Bearer api"}
        keys.renew(3600)

    monkeypatch.setattr(Client, "send", renew)
    _, seen = send(keys, lambda request: httpx.Response(200))
    assert seen == [("Bearer key-3", "/ping")]


def test_a_token_that_someone_else_renewed_is_read_again(keys):
    def reply(request):
        if request.headers["Authorization"] == "Bearer key-1":
            keys.renew(3600)
            return REFUSED
        return httpx.Response(200)

    response, seen = send(keys, reply)
    assert response.status_code == 200
    assert [token for token, _ in seen] == ["Bearer key-1", "Bearer key-2"]


def test_a_refused_token_is_not_sent_again(keys):
    response, seen = send(keys, lambda request: REFUSED)
    assert response.status_code == 400
    assert len(seen) == 1


def test_a_missing_key_file_is_told(keys):
    keys.path.unlink()
    with pytest.raises(ServerError, match="cannot read the server's key file"):
        send(keys, lambda request: httpx.Response(200))


@pytest.mark.parametrize("content", ["[1]", "{}", "nothing"])
def test_a_key_file_that_is_something_else_is_told(keys, content):
    keys.path.write_text(content)
    with pytest.raises(ServerError, match="is not a key file of TorchServe"):
        send(keys, lambda request: httpx.Response(200))


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (413, {"error": "ImageTooLarge", "detail": "48 megapixels"}, ImageTooLarge, "^48 megapixels$"),
        (500, {"error": "InternalError", "detail": "failed"}, ServerError, "^failed$"),
        (400, {"type": "InvalidKeyException", "message": "Token"}, ServerError, "valid token"),
        (
            404,
            {"type": "ModelNotFoundException", "message": "Model not found: x"},
            ServerError,
            "x; perceptual models",
        ),
        (405, {"message": "Requested method is not allowed"}, ServerError, "enable_model_api=true"),
        (409, {"message": "Model x is already registered"}, ServerError, "unregister it first"),
        (413, {}, InputError, "max_request_size"),
        (503, {"message": "no worker"}, ServerError, "no worker; its workers are busy or down"),
        (507, {"message": "Worker died."}, ServerError, "smaller picture"),
        (502, b"<html>", ServerError, "HTTP 502 Bad Gateway"),
        (500, b"[1]", ServerError, "HTTP 500"),
    ],
)
def test_replies_become_errors(status, body, kind, message):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = error_of(httpx.Response(status, content=content))
    assert type(error) is kind
    with pytest.raises(kind, match=message):
        raise error


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (httpx.ConnectError("refused"), r"no server answers at http://i \(refused\); start one"),
        (httpx.ConnectTimeout("late"), r"no server answers at http://i \(late\); start one"),
        (httpx.ReadTimeout("late"), "no answer from http://i within 7 s"),
        (httpx.RemoteProtocolError("gone"), "the connection to http://i broke: gone"),
    ],
)
def test_failed_connections_become_errors(failure, message):
    def fail(request):
        raise failure

    with Client("http://i", timeout=7) as client:
        client.http._transport = httpx.MockTransport(fail)
        with pytest.raises(ServerError, match=message):
            client.send("GET", "/ping")
