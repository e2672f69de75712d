import time
from http.cookies import SimpleCookie

import pytest
from serving_fixtures import Http, running_front

from perceptual.serving.front import visitors
from perceptual.serving.front.page import FOLDER, PageSettings

FILES = ["/page/files/page.js", "/page/samples/china.jpg", "/page/about", "/page/status"]


@pytest.fixture
def folder(tmp_path):
    """Of a front without a TorchServe behind it."""
    for name in ("inner", "logs", "state"):
        (tmp_path / name).mkdir()
    return tmp_path


def running(folder, tokens=True, page=True):
    settings = PageSettings(folder / "model_store", folder / "state", status=True) if page else None
    return running_front(folder, largest=100_000, tokens=tokens, page=settings)


@pytest.fixture
def front(folder):
    with running(folder) as front:
        yield front


def browser(front, cookie=None):
    """What a browser is to the front, with its cookie."""
    client = Http(f"http://127.0.0.1:{front.addresses[0]}", timeout=20)
    if cookie:
        client.headers["Cookie"] = cookie
    return client


def cookie_of(reply):
    ((name, morsel),) = SimpleCookie(reply.headers["set-cookie"]).items()
    return f"{name}={morsel.value}"


def let_in(front):
    reply = browser(front).get(f"/?key={front.page.invite()}", allow_redirects=False)
    return browser(front, cookie_of(reply))


def test_without_key_or_cookie_nothing_is_served(front):
    stranger = browser(front)
    for path in ("/", "/?look=a", "/?key=", "/?key=guessed", "/?key=%C3%A9", *FILES):
        assert stranger.get(path).status_code == 401, path
    for forged in ("", ".", "x", "9999999999.", "9999999999.x", "9999999999.é", "é", b"1.\xff\xfe"):
        cookie = f"{front.page.visitors.name}=".encode() + (forged if isinstance(forged, bytes) else forged.encode())
        assert browser(front, cookie).get("/page/about").status_code == 401, forged
    assert stranger.post("/predictions/tiny", data=b"photo").status_code == 401
    reply = stranger.get("/")
    assert "perceptual token page" in reply.text and reply.headers["content-type"].startswith("text/html")
    policy = reply.headers["content-security-policy"]
    assert "script" not in reply.text and "default-src 'none'" in policy and "style-src 'sha256-" in policy


def test_a_key_lets_in_one_browser(front):
    key = front.page.invite()
    reply = browser(front).get(f"/?look=a&key={key}", allow_redirects=False)
    assert (reply.status_code, reply.headers["location"]) == (303, "/?look=a")
    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and key not in cookie
    assert browser(front).get(f"/?key={key}").status_code == 401
    mine = browser(front, cookie_of(reply))
    again = mine.get(f"/?key={key}", allow_redirects=False)
    assert (again.status_code, again.headers["location"]) == (303, "/") and "set-cookie" not in again.headers


def test_a_browser_that_was_let_in_uses_up_another_key(front):
    mine, key = let_in(front), front.page.invite()
    reply = mine.get(f"/?key={key}", allow_redirects=False)
    assert reply.status_code == 303 and "set-cookie" not in reply.headers
    assert browser(front).get(f"/?key={key}").status_code == 401


def test_who_was_let_in_gets_the_page_and_asks_for_pictures(front):
    mine = let_in(front)
    reply = mine.get("/")
    assert reply.status_code == 200 and "<title>perceptual</title>" in reply.text
    assert "script-src 'self'" in reply.headers["content-security-policy"] and "unsafe" not in str(reply.headers)
    assert mine.get("/page/files/page.js").headers["content-type"].endswith("javascript")
    assert mine.get("/page/samples/china.jpg").headers["content-type"] == "image/jpeg"
    unchanged = {"If-None-Match": mine.get("/page/files/page.js").headers["etag"]}
    assert mine.get("/page/files/page.js", headers=unchanged).status_code == 304
    for path in ("/page/files/nothing.js", "/page/files/%2Fetc%2Fpasswd"):
        assert mine.get(path).status_code == 404, path
    assert mine.get("/page/files/..%2F__init__.py").status_code == 400
    for path in ("/predictions/tiny", "/page/about"):  # there is no TorchServe
        reply = mine.request("GET" if path.startswith("/page") else "POST", path)
        assert reply.status_code == 503 and reply.headers["retry-after"] == "5"
    for path in ("/workflows", "/wfpredict/tiny", "/page/nothing"):
        assert mine.post(path).status_code == 401, path  # the cookie is for pictures alone


FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:9999"},
    {"Origin": "http://127.0.0.1:9999"},
    {"Origin": "null"},
    {"Origin": "http://[bad"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_another_page_can_do_nothing_with_the_cookie(front, headers):
    mine = let_in(front)
    reply = mine.post("/predictions/tiny", data=b"photo", headers=headers)
    assert (reply.status_code, reply.json()["error"]) == (403, "Forbidden")
    for path in FILES:
        assert mine.get(path, headers=headers).status_code == 403
    own = {"Origin": f"http://127.0.0.1:{front.addresses[0]}"}
    for allowed in (own, own | {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
        assert mine.post("/predictions/tiny", headers=allowed).status_code == 503


def test_a_token_is_needed_by_none_but_goes_before_the_cookie(front):
    mine = let_in(front)
    wrong = {"Authorization": "Bearer wrong"}
    assert mine.post("/predictions/tiny", headers=wrong).status_code == 401
    right = {"Authorization": f"Bearer {front.access.newest['inference']['key']}", "Origin": "http://elsewhere"}
    assert mine.post("/predictions/tiny", headers=right).status_code == 503


def test_the_cookie_outlasts_tokens_and_restarts(folder, monkeypatch):
    with running(folder) as front:
        cookie = let_in(front).headers["Cookie"]
    assert (folder / "state" / "page.key").stat().st_mode & 0o777 == 0o600
    with running(folder) as front:
        later = browser(front, cookie)
        assert later.get("/").status_code == 200
        now = time.time()
        monkeypatch.setattr(visitors.time, "time", lambda: now + 2 * 3600)
        assert later.get("/").status_code == 200
        monkeypatch.setattr(visitors.time, "time", lambda: now + visitors.LIFETIME + 1)
        assert later.get("/").status_code == 401
        monkeypatch.undo()
    (folder / "state" / "page.key").write_bytes(b"too short")
    with running(folder) as front:
        assert browser(front, cookie).get("/").status_code == 401


def test_a_link_from_elsewhere_is_followed_from_here(front):
    """As a browser does not send the cookie with the first request."""
    reply = browser(front).get("/?look=a&key=used", headers={"Sec-Fetch-Site": "cross-site"})
    assert (reply.status_code, reply.headers["refresh"]) == (401, "0; url=/?look=a")
    assert "refresh" not in browser(front).get("/", headers={"Sec-Fetch-Site": "same-origin"}).headers


def test_without_tokens_no_key_is_needed(folder):
    with running(folder, tokens=False) as front:
        assert browser(front).get("/").status_code == 200
        assert browser(front).get("/page/files/page.js").status_code == 200
        assert front.page.invite() == "" and not (folder / "state" / "page.key").exists()


def key_from(front):
    api_key = {"Authorization": f"Bearer {front.access.newest['API']['key']}"}
    return Http(f"http://127.0.0.1:{front.addresses[1]}").get("/token?type=page", headers=api_key)


def test_further_keys_come_from_the_management_api(folder, front):
    first, second = (key_from(front).json()["page"]["key"] for _ in range(2))
    assert browser(front).get(f"/?key={second}", allow_redirects=False).status_code == 303
    assert browser(front).get(f"/?key={first}", allow_redirects=False).status_code == 303
    with running(folder, page=False) as front:
        reply = key_from(front)
        assert (reply.status_code, reply.json()["message"]) == (400, "type is inference or management")
        assert browser(front).get("/").status_code == 401


def test_the_page_is_small():
    assert sum(file.stat().st_size for file in FOLDER.iterdir() if file.is_file()) < 60_000
