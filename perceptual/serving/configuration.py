"""TorchServe's configuration: the shipped one, and what is different for each server."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import javaproperties

CONFIG = Path(__file__).with_name("config.properties")
METRICS = Path(__file__).with_name("metrics.yaml")
LOGGING = Path(__file__).with_name("log4j2.xml")
APIS = ("inference", "management", "metrics")
FOREVER = 100 * 365 * 24 * 60  # minutes that TorchServe's own tokens last: they are between it and the front


def written(file: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Writes the shipped configuration with further settings; returns all of them."""
    properties = javaproperties.loads(CONFIG.read_text()) | {key: str(value) for key, value in settings.items()}
    file.write_text(javaproperties.dumps(properties, timestamp=False))
    return properties


def behind_front(folder: Path) -> dict[str, Any]:
    """Settings that put TorchServe's APIs behind the front, at sockets in a folder, where nobody else comes.

    Its tokens stay on, for gRPC's sake: that is at ports, which every user of the machine reaches.
    """
    addresses = {f"{api}_address": f"unix:{folder / api}.sock" for api in APIS}
    return addresses | {"disable_token_authorization": "false", "token_expiration_min": FOREVER}
