import base64
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPSConnection
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from prometheus_client import Counter, Gauge
from serving_fixtures import Http, altered, wait_for

from perceptual.client.addresses import find_server
from perceptual.commands.serve import how_to_use
from perceptual.serving.configuration import METRICS
from perceptual.serving.front.counters import Counters
from perceptual.serving.preconditions import reserve_ports
from perceptual.serving.processes import end_group
from perceptual.serving.server import Server

DEPLOY = Path(__file__).parents[2] / "deploy"
SECRET = "0123456789abcdef" * 4  # as long as of openssl rand -hex 32
PASSWORD = "Basic " + base64.b64encode(f"browser:{SECRET}".encode()).decode()
KEY = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/octet-stream"}

needs_nginx = pytest.mark.skipif(
    not (shutil.which("nginx") and shutil.which("openssl")), reason="nginx or openssl is not installed"
)


@pytest.fixture(scope="module")
def instances(model_store, tmp_path_factory):
    """Two servers at sockets, without tokens; a test that kills one starts it again."""
    options = {"port": 0, "tokens": False}
    folders = [tmp_path_factory.mktemp("sockets") for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        with (
            Server(model_store, sockets=folders[0], **options) as one,
            Server(model_store, sockets=folders[1], **options) as two,
        ):
            yield one, two


@contextmanager
def nginx(folder, sockets, **changes):
    """A client of nginx with the configuration that ships, but for port, paths and changes."""
    (port,) = reserve_ports(0)[:1]
    one, two = sockets
    shipped = (DEPLOY / "nginx.conf").read_text()
    changes |= {
        "/etc/perceptual/": f"{folder}/",
        "/run/perceptual/8080/inference.sock": f"{one}/inference.sock",
        "/run/perceptual/8090/inference.sock": f"{two}/inference.sock",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
    }
    for old, new in changes.items():
        assert old in shipped
        shipped = shipped.replace(old, new)
    (folder / "clients.map").write_text(f'"{KEY["Authorization"]}" tester;\n"{PASSWORD}" browser;\n')
    certificate = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    files = ["-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")]
    subprocess.run([*certificate, *files], check=True, capture_output=True)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"{'user root;' if os.geteuid() == 0 else ''}\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{shipped}\n}}\n"
    )
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        with Http(f"https://127.0.0.1:{port}") as client:
            client.verify = False
            wait_for(lambda: process.poll() is None and answers(client))
            yield client
    finally:
        end_group(process)


def answers(client):
    try:
        return client.get("/nothing").status_code == 404
    except requests.ConnectionError:
        return False


@pytest.fixture(scope="module")
def front(instances, tmp_path_factory):
    """A client of nginx in front of two servers, which lets through as many requests as come."""
    sockets = [each.sockets for each in instances]
    with nginx(tmp_path_factory.mktemp("nginx"), sockets, **{"rate=10r/s": "rate=1000r/s"}) as client:
        yield client


def test_a_server_at_sockets_is_managed_like_any_other(run, instances, photo):
    port = instances[0].ports.inference
    modes = {file.name: file.stat().st_mode & 0o777 for file in instances[0].sockets.iterdir()}
    assert modes["inference.sock"] == 0o660 and not modes["management.sock"] & 0o077
    with socket.socket() as tcp:
        assert tcp.connect_ex(("127.0.0.1", port)) != 0
    assert run("models", "scale", "tiny", "--workers", "1", "--port", port)[1] == "tiny has 1 worker\n"
    url = f"unix:{instances[0].sockets}/management.sock"
    assert run("models", "list", "--url", url)[0] == 1  # even there a token is needed
    url = (url, "--key-file", instances[0].address.key_file)
    assert run("models", "list", "--url", *url)[0] == 0
    assert run("status", "--url", *url)[1].startswith("healthy (/ping: Healthy)")
    assert run("status", "--port", port)[0] == 0
    with find_server(port).inference() as client:
        assert client.stylize(photo, "tiny")
    printed = how_to_use(instances[0])
    assert f"--unix-socket {instances[0].sockets}/inference.sock http://localhost/predictions/tiny" in printed
    assert "$TOKEN" not in printed and "TOKEN=" not in printed


@needs_nginx
def test_only_predictions_and_health_are_exposed(front, photo):
    reply = front.post("/predictions/tiny", data=photo, headers=KEY)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/jpeg")
    assert front.post("/predictions/tiny/1.2", data=photo, headers=KEY).status_code == 200
    for method, path in (
        ("GET", "/models"),
        ("POST", "/models?url=tiny.mar"),
        ("POST", "/models/tiny/invoke"),
        ("GET", "/metrics"),
        ("GET", "/token?type=inference"),
        ("POST", "/workflows"),
        ("POST", "/predictions/tiny/../../models"),
        ("POST", "/predictions/tiny/1.2/explain"),
        ("POST", "/explanations/tiny"),
        ("OPTIONS", "/nothing"),
    ):
        assert front.request(method, path, headers=KEY).status_code == 404, path
    assert front.options("/", headers=KEY).status_code == 403
    assert front.get("/predictions/tiny", headers=KEY).status_code == 403
    assert front.delete("/ping").status_code == 403


def ask_as_written(client, method, path, headers=(), body=None):
    """Status and body for a path that requests would change."""
    insecure = ssl._create_unverified_context()
    connection = HTTPSConnection(urlsplit(client.url).netloc, timeout=60, context=insecure)
    connection.request(method, path, body, dict(headers))
    with connection.getresponse() as reply:
        return reply.status, reply.read()


@needs_nginx
def test_what_nginx_forwards_is_the_path_that_it_has_checked(front, photo):
    octets = {"Content-Type": KEY["Content-Type"]}
    for path in (
        "/predictions/tiny/1.2/../../../ping",
        "/predictions/tiny/%2e%2E/.%2e/ping",
        "/predictions/tiny%2F..%2f../ping",
        "/page/status/../../ping",
        "/models/../ping",
        "//ping",
    ):
        status, body = ask_as_written(front, "GET", path, octets, photo)
        assert (status, json.loads(body)) == (200, {"status": "Healthy"}), path
    for path in (
        "/ping/../predictions/tiny",
        "/page/../predictions/tiny",
        "//predictions//tiny",
        "/%70redictions/tiny",
    ):
        assert ask_as_written(front, "POST", path, octets, photo)[0] == 401, path
        status, body = ask_as_written(front, "POST", path, KEY, photo)
        assert status == 200 and body.startswith(b"\xff\xd8"), path
    for path in ("/predictions/tiny/../../models", "/page/..%2fmodels", "/page/%2e%2e/metrics"):
        assert ask_as_written(front, "POST", path, KEY, photo)[0] == 404, path
    status, body = ask_as_written(front, "POST", "/explanations/tiny/../../predictions/tiny", KEY, photo)
    assert status == 200 and body.startswith(b"\xff\xd8")
    password = octets | {"Authorization": PASSWORD}
    assert ask_as_written(front, "GET", "/page/about/../../predictions/tiny", password, photo)[0] == 403
    assert ask_as_written(front, "GET", "/predictions/../page/about", password)[0] == 200
    status, body = ask_as_written(front, "GET", "/page/%252e%252e/ping", password)
    assert status == 404 and b"Healthy" not in body


def test_the_command_for_a_password_prints_one_line():
    texts = ((DEPLOY / "nginx.conf").read_text(), (DEPLOY.parent / "docs/operations.md").read_text())
    for text in texts:
        command = re.sub(r"NAME:[A-Z-]+", f"browser:{SECRET}", re.search(r"printf %s NAME:[^`\n]+", text)[0])
        printed = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
        assert f"Basic {printed}" == PASSWORD


FOREIGN = [
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "anything"},
    {"Origin": "https://evil.example"},
    {"Origin": "https://127.0.0.1:1"},
    {"Origin": "https://127.0.0.1"},
    {"Origin": "null"},
]


@needs_nginx
def test_the_page_is_for_browsers_with_a_password(front, photo):
    reply = front.get("/")
    assert (reply.status_code, reply.headers["www-authenticate"]) == (401, 'Basic realm="perceptual", charset="UTF-8"')
    assert front.get("/page/about").status_code == 401
    password = {"Authorization": PASSWORD}
    reply = front.get("/", headers=password)
    assert reply.status_code == 200 and "<title>perceptual</title>" in reply.text
    assert "www-authenticate" not in reply.headers
    told = front.get("/page/about", headers=password).json()
    assert [each["name"] for each in told["models"]] == ["tiny"] and told["token"] == ""
    assert front.get("/page/status", headers=password).status_code == 404
    sites = [
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": front.url}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": front.url}, 200),
        *((foreign, 403) for foreign in FOREIGN),
    ]
    for site, status in sites:
        headers = password | {"Content-Type": "image/png"} | site
        assert front.post("/predictions/tiny", data=photo, headers=headers).status_code == status, site
        assert front.post("/predictions/tiny", data=photo, headers=KEY | site).ok


@needs_nginx
def test_no_client_sets_since_when_it_has_waited(front, photo):
    forged = {**KEY, "X-Request-Start": f"t={time.time() - 3600:.3f}"}
    timing = front.post("/predictions/tiny", data=photo, headers=forged).headers["Server-Timing"]
    assert float(re.search(r"wait;dur=([\d.]+)", timing)[1]) < 60_000  # milliseconds


@needs_nginx
def test_what_a_photo_is_called_does_not_matter(front, photo):
    for kind in ("application/x-www-form-urlencoded", "image/png", ""):
        reply = front.post("/predictions/tiny", data=photo, headers=KEY | {"Content-Type": kind})
        assert reply.status_code == 200, kind
    bad = KEY | {"Content-Type": "multipart/form-data; boundary=xx"}
    nameless = [front.post("/predictions/tiny", data=b"--xx\r\n\r\na\r\n--xx--\r\n", headers=bad) for _ in range(4)]
    assert [reply.status_code for reply in nameless] == [400] * 4
    assert front.post("/predictions/tiny", data=photo, headers=KEY).status_code == 200  # nothing is taken for dead
    form = {"files": {"data": ("photo.png", photo)}, "data": {"strength": "7"}}
    key = {"Authorization": KEY["Authorization"]}
    assert front.post("/predictions/tiny", headers=key, **form).json()["error"] == "InvalidOption"


@needs_nginx
def test_only_known_clients_and_bodies_within_the_limit(front, photo):
    for key in ({}, {"Authorization": "Bearer wrong"}):
        assert front.post("/predictions/tiny", data=photo, headers=key).status_code == 401
    head = f"POST /predictions/tiny HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY['Authorization']}\r\n"
    with socket.create_connection(("127.0.0.1", urlsplit(front.url).port), timeout=20) as plain:
        insecure = ssl._create_unverified_context()
        with insecure.wrap_socket(plain) as connection:
            connection.sendall(f"{head}Content-Length: {2**28}\r\n\r\n".encode())  # and not a byte of it
            assert b" 413 " in connection.recv(200)


@needs_nginx
def test_a_client_that_asks_too_often_is_refused(tmp_path):
    with nginx(tmp_path, [tmp_path, tmp_path]) as client:  # no server behind it
        replies = [client.post("/predictions/tiny", headers=KEY) for _ in range(60)]
        refused = [reply for reply in replies if reply.status_code == 429]
        assert [reply.status_code for reply in replies[:20]] == [502] * 20
        assert len(refused) >= 20 and {reply.headers["retry-after"] for reply in refused} == {"1"}
        assert client.get("/ping").status_code == 502  # is not counted


@needs_nginx
def test_killing_one_of_two_servers_under_load_loses_no_request(front, instances, photo):
    end, statuses = threading.Event(), []

    def ask():
        while not end.is_set():
            statuses.append(front.post("/predictions/tiny", data=photo, headers=KEY).status_code)

    with ThreadPoolExecutor(4) as pool:
        askers = [pool.submit(ask) for _ in range(4)]
        try:
            wait_for(lambda: len(statuses) >= 20)
            before = len(statuses)
            os.killpg(instances[1].process.pid, signal.SIGKILL)
            wait_for(lambda: len(statuses) >= before + 20)
        finally:
            end.set()
    assert [asker.result() for asker in askers] == [None] * 4
    assert set(statuses) == {200}
    instances[1].restart()
    wait_for(instances[1].healthy)


DEADLY = """
import os, pathlib, signal
class Deadly:
    def initialize(self, context):
        pass
    def handle(self, data, context):
        with open({log!r}, "a") as log:
            log.write("died\\n")
        os.kill(os.getpid(), signal.SIGKILL)
"""


@needs_nginx
def test_a_photo_that_kills_workers_does_not_go_to_the_other_server(front, instances, photo, tmp_path):
    log = tmp_path / "deaths"
    handler = {"style_transfer.py": DEADLY.format(log=str(log)).encode()}
    store = instances[0].model_store
    archive = altered(store / "tiny.mar", store / "deadly.mar", handler, modelName="deadly")
    try:
        for each in instances:
            with each.address.management() as management:
                management.register(archive.name)
        reply = front.post("/predictions/deadly", data=photo, headers=KEY)
        assert (reply.status_code, reply.json()["error"]) == (500, "WorkerDied")
        assert log.read_text() == "died\n" * 2
        (begun,) = (
            line
            for each in instances
            for line in map(json.loads, (each.logs.folder / "requests.log").read_text().splitlines())
            if line["request_id"] == reply.headers["x-request-id"] and line["event"] == "begin"
        )
        assert (begun["client"], begun["bytes"], begun["format"]) == ("tester", len(photo), "png")
    finally:
        for each in instances:
            with each.address.management() as management:
                management.unregister("deadly")
        archive.unlink()


STRANGER = """
import encodings.idna, os, socket, sys
import grpc
grpc.insecure_channel("127.0.0.1:1").unary_unary("/x")  # imports what it needs, as later it may read no file of Python
os.setgroups([]); os.setgid(65534); os.setuid(65534)
inference, management, key_file, *sockets = sys.argv[1:]
def ask(port, method):
    call = grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary(f"/org.pytorch.serve.grpc.{method}")
    try:
        call(b"", timeout=20)
        return "answered"
    except grpc.RpcError as error:
        return error.code().name
print(ask(management, "management.ManagementAPIsService/ListModels"))
print(ask(management, "management.ManagementAPIsService/RegisterModel"))
print(ask(inference, "inference.InferenceAPIsService/Predictions"))
for path in sockets:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        print("connected")
    except OSError as error:
        print(type(error).__name__)
try:
    print(open(key_file).read())
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_of_the_machine_manages_nothing(instances):
    server = instances[0]
    sockets = [server.sockets / "inference.sock", server.sockets / "management.sock", *server.inner.glob("*.sock")]
    assert len(sockets) == 5
    ports = [str(server.ports.grpc_inference), str(server.ports.grpc_management)]
    command = [sys.executable, "-c", STRANGER, *ports, server.address.key_file, *map(str, sockets)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["PERMISSION_DENIED"] * 3 + ["PermissionError"] * 6


@needs_nginx
def test_a_refusal_says_when_to_try_again(front, instances, photo):
    for each in instances:
        with each.address.management() as management:
            management.scale("tiny", 0)
    reply = front.post("/predictions/tiny", data=photo, headers=KEY)
    assert reply.status_code == 503 and reply.headers["retry-after"] == "5"
    for each in instances:
        with each.address.management() as management:
            management.scale("tiny", 1)
    replies = []

    def answered():
        replies.append(front.post("/predictions/tiny", data=photo, headers=KEY))
        return replies[-1].status_code == 200

    wait_for(answered, seconds=30)
    assert "retry-after" not in replies[-1].headers


def metrics_with_labels():
    """All metrics that there are, of the handlers, TorchServe and the front."""
    listed = yaml.safe_load(METRICS.read_text())
    kinds = [group for side in ("ts_metrics", "model_metrics") for group in listed[side].values()]
    labels = {each["name"]: {*each["dimensions"], "le"} for group in kinds for each in group}
    for metric in vars(Counters()).values():
        if isinstance(metric, (Counter, Gauge)):
            labels[metric._name + "_total" * isinstance(metric, Counter)] = set(metric._labelnames)
    return labels


def check_expressions(asked):
    """Fails on metrics or labels that there are not; gives the metrics."""
    labels = metrics_with_labels()
    named = re.findall(r"\b(?:perceptual|ts)_\w+|MemoryUtilization", asked)
    metrics = {re.sub("_(bucket|count|sum)$", "", name) for name in named}
    assert metrics and metrics <= labels.keys()
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", asked) for label in re.split(r",\s*", group)}
    assert grouped <= {"instance"}.union(*(labels[name] for name in metrics))
    return metrics


def test_the_dashboard_asks_for_metrics_that_there_are():
    panels = json.loads((DEPLOY / "grafana.json").read_text())["panels"]
    metrics = check_expressions(" ".join(target["expr"] for panel in panels for target in panel["targets"]))
    assert {name for name in metrics_with_labels() if name.startswith("perceptual_")} <= metrics
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_the_alerts_ask_for_metrics_that_there_are():
    rules = [rule for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
    for rule in rules:
        if rule["alert"] != "PerceptualDown":
            check_expressions(rule["expr"])
        assert rule["labels"]["severity"] in ("page", "warn") and rule["annotations"]["summary"]
    assert len({rule["alert"] for rule in rules}) == len(rules)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_understands_the_unit(tmp_path):
    unit = tmp_path / "perceptual@8080.service"
    shipped = (DEPLOY / "perceptual@.service").read_text()
    unit.write_text(shipped.replace("/opt/perceptual/bin/perceptual", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_starts_servers_uses_options_that_there_are(run):
    known = run("serve", "--help")[1]
    for name in ("perceptual@.service", "Dockerfile"):
        lines = re.findall("^(?:ExecStart=|ENTRYPOINT|CMD).*", (DEPLOY / name).read_text(), re.MULTILINE)
        options = set(re.findall(r"--[a-z-]+", " ".join(lines)))
        assert "--supervise" in options and options <= set(re.findall(r"--[a-z-]+", known))


@pytest.mark.slow
def test_what_the_image_installs_is_what_is_tested():
    lines = (DEPLOY / "requirements.lock").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    image, unit = ((DEPLOY / name).read_text() for name in ("Dockerfile", "perceptual@.service"))
    python, extras = (re.search(pattern, image)[1] for pattern in (r"FROM python:([\d.]+)-slim", r"ARG EXTRAS=(.+)"))
    assert f"with Python {python};" in lines[0]
    by_unit = re.search(r"CHECKOUT\[(.+?)\]", unit)[1].split(",")
    assert {"serve", "tiff"} <= set(extras.split(",")) <= set(by_unit)
    for each in map(Requirement, distribution("torchserve-perceptual").requires):
        for extra in ("", *by_unit):
            if each.marker is None or each.marker.evaluate({"python_version": python, "extra": extra}):
                assert each.specifier.contains(pins[canonicalize_name(each.name)]), each
