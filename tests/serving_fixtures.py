"""What the tests against a TorchServe share."""

import json
import time
import zipfile

from perceptual.archives.manifest import MANIFEST


def wait_for(condition, seconds):
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
