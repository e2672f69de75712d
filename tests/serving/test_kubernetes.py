"""What deploy/kubernetes says, and what Kubernetes would do with it: done here, by hand."""

import copy
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

import kubernetes_validate
import psutil
import pytest
import requests
import yaml
from serving_fixtures import Http, wait_for

from perceptual.serving.front import Front
from perceptual.serving.preconditions import reserve_ports

DEPLOY = Path(__file__).parents[2] / "deploy/kubernetes"
CHART = DEPLOY / "chart"
VERSIONS = ("1.35", "1.36", "1.37")
KEY = {"Authorization": "Bearer " + "0123456789abcdef" * 4}  # as long as of openssl rand -hex 32
KSERVE = ("/v1/models/tiny:predict", "/v2/models/tiny/infer")
SERVE = [sys.executable, "-c", "import sys; from perceptual.commands import main; sys.exit(main())", "serve"]


def plain():
    """The plain manifests, by kind."""
    return {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "perceptual.yaml").read_text()) if each}


MANIFESTS = plain()
POD = MANIFESTS["Deployment"]["spec"]["template"]["spec"]
SERVER, NGINX = POD["containers"]
NGINX_CONF = MANIFESTS["ConfigMap"]["data"]["nginx.conf"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.slow
def test_the_manifests_are_what_the_api_takes(version):
    for manifest in MANIFESTS.values():
        kubernetes_validate.validate(manifest, version, strict=True)
    service = yaml.safe_load((DEPLOY / "inferenceservice.yaml").read_text())
    spec = service["spec"]["predictor"]
    own = {"minReplicas", "maxReplicas", "timeout"}  # KServe's; the rest is that of a pod
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
    pod["spec"] = {key: value for key, value in spec.items() if key not in own}
    kubernetes_validate.validate(pod, version, strict=True)


def test_kserve_s_manifest_says_how_to_make_what_it_assumes():
    text = (DEPLOY / "inferenceservice.yaml").read_text()
    (nginx,) = (each for each in yaml.safe_load(text)["spec"]["predictor"]["volumes"] if each["name"] == "nginx")
    config, clients = nginx["projected"]["sources"]
    file = re.search(f"kubectl create configmap {config['configMap']['name']} --from-file=(.+)", text)[1]
    assert (DEPLOY.parents[1] / file).read_text() == NGINX_CONF
    assert f"kubectl create secret generic {clients['secret']['name']} --from-file=clients.map\n" in text


def test_a_manifest_that_is_wrong_is_found():
    wrong = copy.deepcopy(MANIFESTS["Deployment"])
    wrong["spec"]["template"]["spec"]["containers"][0]["readOnly"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def rendered(**values):
    """What helm makes of the chart, by kind."""
    helm = pytest.importorskip("helm_python")
    with helm.Chart.load(CHART) as chart:
        files = chart.render(values, name="perceptual").values()
    return {each["kind"]: each for file in files for each in yaml.safe_load_all(file) if each}


def test_helm_renders_the_plain_manifests():
    assert rendered(autoscaling={"enabled": True}) == MANIFESTS
    assert import_module("helm_python").lint(str(CHART))["errors"] == []


@pytest.mark.parametrize(
    ("values", "path", "wanted"),
    [
        ({}, "spec.replicas", 2),
        ({"gpus": 1}, "spec.template.spec.containers.0.resources.limits", {"memory": "5Gi", "nvidia.com/gpu": 1}),
        (
            {"modelStore": {"source": "volume", "claim": "x"}},
            "spec.template.spec.volumes.4.persistentVolumeClaim.claimName",
            "x",
        ),
        (
            {"modelStore": {"source": "bucket", "bucket": "b/x", "secret": "s"}},
            "spec.template.spec.initContainers.0.args.1",
            "store:b/x",
        ),
        (
            {"nodeSelector": {"zone": "a"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]},
            "spec.template.spec.nodeSelector.zone",
            "a",
        ),
    ],
)
def test_the_chart_renders_with_other_values(values, path, wanted):
    manifests = rendered(**values)
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)
    found = manifests["Deployment"]
    for step in path.split("."):
        found = found[int(step) if step.isdigit() else step]
    assert found == wanted


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": "registry.example.com/perceptual:latest"},
        {"replicas": 0},
        {"modelStore": {"source": "volume", "claim": ""}},
        {"modelStore": {"source": "bucket"}},
        {"replica": 3},
        {"resources": {"requests": {"cpu": None}}},
    ],
)
def test_values_that_are_wrong_are_refused(wrong):
    rendered()
    with pytest.raises(ValueError, match=next(iter(wrong))):
        rendered(**wrong)


def test_pods_may_do_no_more_than_they_must():
    assert POD["securityContext"]["runAsNonRoot"] and POD["securityContext"]["seccompProfile"]
    assert POD["automountServiceAccountToken"] is False
    for container in POD["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"} and container["resources"]["limits"]
    policy = MANIFESTS["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"] and policy["egress"] == []
    assert [each["ports"][0]["port"] for each in policy["ingress"]] == ["http", "metrics"]
    assert all(each["from"] for each in policy["ingress"])
    assert [each["targetPort"] for each in MANIFESTS["Service"]["spec"]["ports"]] == ["http"]


def test_a_pod_is_given_the_time_that_it_needs_to_end():
    drained = SERVER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert drained > NGINX["lifecycle"]["preStop"]["sleep"]["seconds"]
    seconds = int(SERVER["args"][SERVER["args"].index("--drain") + 1])
    assert POD["terminationGracePeriodSeconds"] >= drained + seconds + 15


def test_the_autoscaler_asks_for_a_metric_that_there_is():
    from test_deploy import check_expressions

    (metric,) = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["metrics"]
    rules = yaml.safe_load((DEPLOY / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] in {rule["name"]["as"] for rule in rules}
    for rule in rules:
        check_expressions(rule["metricsQuery"].replace("<<.GroupBy>>", "instance"))


def test_of_kserve_s_protocols_there_is_what_the_manifest_says(server, photo):
    claimed = (DEPLOY / "inferenceservice.yaml").read_text()
    assert all(path.replace("tiny", "NAME") in claimed for path in KSERVE)
    with server.address.inference() as client:
        reply = client.request("POST", "/predictions/tiny", data=photo, headers={"X-Strength": "0.5"})
        assert reply.headers["content-type"].startswith("image/")
        for path in KSERVE:
            same = client.request("POST", path, data=photo, headers={"X-Strength": "0.5"})
            assert (same.status_code, same.content) == (200, reply.content)
            for envelope in ({"instances": [{"data": "eA=="}]}, {"inputs": []}):
                assert client.request("POST", path, json=envelope).status_code in (400, 415)
        for path in ("/v1/models", "/v1/models/tiny", "/v2/models/tiny", "/v2/models/tiny/ready", "/v2/health/ready"):
            assert client.request("GET", path).status_code in (404, 405)


class Nginx:
    """The pod's nginx, on ports and in a folder of this machine, before sockets in ``folder/run``."""

    def __init__(self, folder, metrics, log=None):
        (folder / "run").mkdir()
        (folder / "clients.map").write_text(f'"{KEY["Authorization"]}" tester;\n')
        (http,), (own_metrics,) = (reserve_ports(0)[:1] for _ in range(2))
        conf = NGINX_CONF
        for old, new in {
            "listen 8080": f"listen 127.0.0.1:{http}",
            "listen 8082": f"listen 127.0.0.1:{own_metrics}",
            "127.0.0.1:9082": f"127.0.0.1:{metrics}",
            "/tmp/": f"{folder}/",
            "/etc/perceptual/": f"{folder}/",
            "/run/perceptual/": f"{folder}/run/",
            "rate=10r/s": "rate=1000r/s",
            "worker_processes auto": f"{'user root; ' * (os.geteuid() == 0)}worker_processes 1",
        }.items():
            assert old in conf
            conf = conf.replace(old, new)
        (folder / "nginx.conf").write_text(conf)
        command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
        self.process = subprocess.Popen(command, stderr=log)
        self.client, self.metrics = Http(f"http://127.0.0.1:{http}"), Http(f"http://127.0.0.1:{own_metrics}")


class Pod:
    """A server and its nginx, as the Deployment has them, on ports and in folders of this machine."""

    def __init__(self, folder, model_store):
        self.folder = folder
        (self.port,) = reserve_ports(0)[:1]
        changes = {"9080": str(self.port), "/run/perceptual": f"{folder}/run"}
        args = [changes.get(each, each) for each in SERVER["args"]]
        self.log = (folder / "log").open("w")
        nginx = Nginx(folder, self.port + 2, self.log)
        self.nginx, self.client, self.metrics = nginx.process, nginx.client, nginx.metrics
        self.server = subprocess.Popen(
            [*SERVE, "--supervise", "--model-store", str(model_store), *args],
            env=os.environ | {"XDG_RUNTIME_DIR": str(folder), "OMP_NUM_THREADS": "1"},
            stdout=self.log,
            stderr=self.log,
        )

    def probe(self, path="/ready"):
        try:
            return self.client.get(path, timeout=10).status_code
        except requests.RequestException:
            return None

    def workers(self):
        """The processes of TorchServe's workers."""
        below = psutil.Process(self.server.pid).children(recursive=True)
        return [each for each in below if "model_service_worker.py" in " ".join(each.cmdline())]

    def end(self, drain):
        """Ends as Kubernetes ends it: each container after its preStop, nginx by its image's SIGQUIT."""
        time.sleep(drain)
        self.nginx.send_signal(signal.SIGQUIT)
        time.sleep(drain / 2)
        self.server.send_signal(signal.SIGTERM)
        assert self.nginx.wait(60) == 0
        assert self.server.wait(60) == 128 + signal.SIGTERM

    def kill(self):
        for process in (self.nginx, self.server):
            if process.poll() is None:
                process.terminate()
                process.wait(60)
        self.log.close()


@pytest.fixture(scope="module")
def pods(model_store, tmp_path_factory):
    """Makes pods."""
    made = []

    def make():
        made.append(Pod(tmp_path_factory.mktemp("pod"), model_store))
        return made[-1]

    yield make
    for pod in made:
        pod.kill()


needs_nginx = pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")


@pytest.fixture
def front_in_pod(tmp_path):
    """A front at the pod's socket, with what stands for TorchServe, and a client of nginx before it."""
    from test_front import Torchserve

    for name in ("inner", "logs", "tmp"):
        (tmp_path / name).mkdir()
    management, metrics = reserve_ports(0)[:2]
    nginx = Nginx(tmp_path, metrics)
    at = (tmp_path / "run" / "inference.sock", management, metrics)
    front = Front(*at, torchserve=tmp_path / "inner", folder=tmp_path, largest=100_000, tokens=False)
    front.start()
    try:
        with Torchserve(tmp_path / "inner") as torchserve:
            wait_for(lambda: probed(nginx.client) == 200)
            yield front, torchserve, nginx
    finally:
        front.stop()
        nginx.process.terminate()
        nginx.process.wait(60)


def probed(client, path="/live", seconds=10):
    try:
        return client.get(path, timeout=seconds).status_code
    except requests.RequestException:
        return None


@needs_nginx
def test_a_server_that_hangs_is_restarted_and_nginx_is_not(front_in_pod):
    front, _, nginx = front_in_pod
    ports = {port["name"]: port["containerPort"] for port in NGINX["ports"]}
    alive, started = (SERVER[f"{kind}Probe"] for kind in ("liveness", "startup"))  # Kubernetes restarts what has them
    assert alive["httpGet"] == {"path": "/live", "port": ports["http"]}
    assert started["httpGet"] == {"path": "/ready", "port": ports["http"]}
    assert not {"livenessProbe", "startupProbe"} & NGINX.keys()
    assert NGINX["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "http"}
    end = threading.Event()
    front.loop.call_soon_threadsafe(end.wait, 60)
    assert probed(nginx.client, seconds=alive["timeoutSeconds"]) is None
    end.set()
    wait_for(lambda: probed(nginx.client) == 200)


@needs_nginx
def test_what_the_pod_s_nginx_forwards_is_the_path_that_it_has_checked(front_in_pod):
    _, torchserve, nginx = front_in_pod

    def ask(method, path, key=None, client=nginx.client):
        connection = HTTPConnection(urlsplit(client.url).netloc, timeout=20)  # requests would resolve the dots
        connection.request(method, path, b"photo", key or {})
        with connection.getresponse() as reply:
            return reply.status

    for dots in ("/predictions/tiny/1.2/../../..", "/predictions/%2e%2E", "/v2/models/tiny%2f..%2F../..", "/"):
        assert ask("GET", f"{dots}/ping") == 200 and torchserve.asked.pop()[1] == "/ping"
        assert (ask("GET", f"{dots}/live"), ask("GET", f"{dots}/ready"), torchserve.asked) == (200, 503, [])
        assert ask("GET", f"{dots}/metrics", client=nginx.metrics) == 200
    for path in ("/predictions/tiny", "/predictions/tiny/1.2", *KSERVE):
        written = f"/explanations/x/../..{path}"
        assert (ask("POST", written), torchserve.asked) == (401, [])
        assert ask("POST", written, KEY) == 200 and torchserve.asked.pop()[1] == path


@needs_nginx
def test_no_client_of_the_pod_s_nginx_sets_since_when_it_has_waited(front_in_pod):
    _, torchserve, nginx = front_in_pod
    begin = time.time()
    forged = {**KEY, "X-Request-Start": f"t={begin - 3600:.3f}"}
    assert nginx.client.post("/predictions/tiny", data=b"photo", headers=forged).status_code == 200
    (told,) = torchserve.asked[-1][2].get_all("X-Request-Start")
    assert begin - 1 < float(told.removeprefix("t=")) < begin + 60


@needs_nginx
@pytest.mark.release
@pytest.mark.timeout(900)
def test_a_rolling_update_under_load_loses_no_request(pods, photo):
    first, second = pods(), pods()
    seen = set()

    def ready():
        seen.add(first.probe())
        return first.probe() == 200 and second.probe() == 200

    wait_for(ready, seconds=300)
    assert {502, 503} & seen  # while it loaded
    endpoints, statuses, end = [first, second], [], threading.Event()

    def ask():
        with requests.Session() as session:
            session.trust_env = False
            while not end.is_set():
                url = random.choice(endpoints).client.url
                reply = session.post(f"{url}/predictions/tiny", data=photo, headers=KEY, timeout=60)
                statuses.append(reply.status_code)

    with ThreadPoolExecutor(4) as pool:
        askers = [pool.submit(ask) for _ in range(4)]
        try:
            for old in (first, second):  # maxSurge: 1, maxUnavailable: 0
                new = pods()
                wait_for(lambda new=new: new.probe() == 200, seconds=300)
                endpoints.append(new)
                endpoints.remove(old)
                begun = len(statuses)
                old.end(drain=1.0)
                assert len(statuses) > begun
        finally:
            end.set()
    assert [asker.result() for asker in askers] == [None] * 4
    assert set(statuses) == {200} and len(statuses) > 100

    pod = endpoints[0]
    assert (
        pod.metrics.get("/metrics").status_code == 200
        and "perceptual_requests_total" in pod.metrics.get("/metrics").text
    )
    for path in ("/models", "/metrics", "/token", "/predictions/tiny/1.2/explain", "/"):
        assert pod.client.get(path, headers=KEY).status_code == 404
    assert pod.client.post("/predictions/tiny", data=photo).status_code == 401
    reply = pod.client.post("/predictions/tiny", data=photo, headers=KEY)
    for path in KSERVE:
        same = pod.client.post(path, data=photo, headers=KEY)
        assert (same.status_code, same.content) == (200, reply.content)

    (worker,) = pod.workers()
    worker.kill()
    wait_for(lambda: pod.probe() == 503, seconds=30)
    assert pod.client.get("/ready").json()["missing"] == ["tiny/1.2"] and pod.probe("/live") == 200
    wait_for(lambda: pod.probe() == 200, seconds=120)
