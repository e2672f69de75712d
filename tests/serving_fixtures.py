"""What the tests against a TorchServe share."""

import json
import random
import socket
import time
import zipfile
from contextlib import contextmanager

import requests
from requests.adapters import HTTPAdapter

from perceptual.archives.manifest import MANIFEST
from perceptual.serving.front import Front
from perceptual.serving.preconditions import reserve_ports


class Http(requests.Session):
    """A session with one server, which is asked by path."""

    def __init__(self, url, auth=None, timeout=60):
        super().__init__()
        self.url, self.auth, self.timeout = url, auth, timeout
        self.trust_env = False  # no proxy
        self.mount(url, HTTPAdapter(pool_maxsize=100))

    def request(self, method, path, **arguments):
        return super().request(method, self.url + path, **{"timeout": self.timeout, **arguments})


@contextmanager
def running_front(folder, **options):
    """A front at free ports, before whatever listens in ``folder/inner``."""
    front = Front(*reserve_ports(0)[:3], torchserve=folder / "inner", folder=folder, **options)
    front.start()
    try:
        yield front
    finally:
        front.stop()


def wait_for(condition, seconds=60):
    """Waits as long as a busy machine may need; what must be quick is timed where it is tested."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


def altered(archive, target, changes=None, **model):
    """Copies an archive with some of its files replaced, and entries of its manifest's ``model``."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as copy:
        manifest = json.loads(source.read(MANIFEST))
        manifest["model"] |= model
        changes = {MANIFEST: json.dumps(manifest).encode()} | (changes or {})
        for name in source.namelist():
            copy.writestr(name, changes.get(name, source.read(name)))
    return target


def free_port():
    """The first of three free ports in a row, below those that the system gives to connections meanwhile."""
    while True:
        port = random.SystemRandom().randrange(20000, 30000)
        if are_free(port):
            return port


def are_free(port):
    """Whether a port is free, and the two after it."""
    try:
        for each in range(port, port + 3):
            with socket.socket() as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                other.bind(("127.0.0.1", each))
    except OSError:
        return False
    return True
