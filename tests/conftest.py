"""How tests run; what they share is in ``common_fixtures.py``."""

import os
import signal
from collections import Counter

import pytest

# A shell's background, and nohup, ignore signals that the commands which tests start would then ignore too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# A server of tests lives for seconds: its Java is to start quickly, not to become quick.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")

# What a test does that takes long, by the fixtures that it uses; others are marked where they stand.
MARKS = {
    "serves": {"server", "gpu_server", "instances", "supervised", "ray_cluster"},
    "trains": {"loss_weights"},
    "slow": {"bench", "compiler", "exported"},
}


def pytest_configure(config):
    # The process that only hands tests out to others (-n) needs no fixtures, and does not wait for their imports.
    if config.getoption("dist", "no") == "no":
        config.pluginmanager.import_plugin("common_fixtures")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        for mark, fixtures in MARKS.items():
            if fixtures & set(item.fixturenames):
                item.add_marker(mark)
    # Processes take modules one after another (make test), so those with the most of such tests come first.
    long = Counter(item.path for item in items if any(map(item.get_closest_marker, MARKS)))
    items.sort(key=lambda item: -long[item.path])
