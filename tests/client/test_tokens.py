import json
from datetime import datetime, timedelta, timezone
from urllib.parse import urlsplit

import pytest
import requests

from perceptual.client.connection import Client
from perceptual.client.tokens import Tokens
from perceptual.errors import ServerError

REFUSED = 400, {"code": 400, "type": "InvalidKeyException", "message": "Token …"}


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


@pytest.fixture
def send(keys, replies):
    """Sends one request with a token; returns its reply and the authorizations and paths that the server saw."""

    def send(reply):
        seen = []

        def serve(request):
            seen.append((request.headers["Authorization"], urlsplit(request.url).path))
            return reply(request)

        with requests.Session() as session:
            session.mount("http://", replies(serve))
            return session.get("http://i/ping", auth=Tokens(keys.path, "inference", "http://m")), seen

    return send


def test_a_valid_token_is_used_as_it_is(send):
    _, seen = send(lambda request: (200, {}))
    assert seen == [("Bearer key-1", "/ping")]


def test_a_token_near_its_end_is_renewed_first(keys, send, monkeypatch):
    keys.renew(60)

    def renew(client, method, path, params, headers):
        assert (method, client.base, path, params) == ("GET", "http://m", "/token", {"type": "inference"})
        assert headers == {"Authorization": "Bearer api"}
        keys.renew(3600)

    monkeypatch.setattr(Client, "send", renew)
    _, seen = send(lambda request: (200, {}))
    assert seen == [("Bearer key-3", "/ping")]


def test_a_token_that_someone_else_renewed_is_read_again(keys, send):
    def reply(request):
        if request.headers["Authorization"] == "Bearer key-1":
            keys.renew(3600)
            return REFUSED
        return 200, {}

    response, seen = send(reply)
    assert response.status_code == 200
    assert [token for token, _ in seen] == ["Bearer key-1", "Bearer key-2"]


def test_a_refused_token_is_not_sent_again(send):
    response, seen = send(lambda request: REFUSED)
    assert response.status_code == 400
    assert len(seen) == 1


def test_a_missing_key_file_is_told(keys, send):
    keys.path.unlink()
    with pytest.raises(ServerError, match="cannot read the server's key file"):
        send(lambda request: (200, {}))


@pytest.mark.parametrize("content", ["[1]", "{}", "nothing"])
def test_a_key_file_that_is_something_else_is_told(keys, send, content):
    keys.path.write_text(content)
    with pytest.raises(ServerError, match="is not a key file of TorchServe"):
        send(lambda request: (200, {}))
