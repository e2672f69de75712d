"""TorchServe's configuration: the shipped file, and the settings that differ from server to server."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import javaproperties

from ..errors import InputError, did_you_mean

CONFIG = Path(__file__).with_name("config.properties")
METRICS = Path(__file__).with_name("metrics.yaml")
LOGGING = Path(__file__).with_name("log4j2.xml")
APIS = ("inference", "management", "metrics")
FOREVER = 100 * 365 * 24 * 60  # minutes until TorchServe's own tokens expire; only the front uses them

# The settings that TorchServe 0.12 reads: the names in its ConfigManager.
KNOWN = frozenset(
    """
    allowed_urls async_logging blacklist_env_vars certificate_file cors_allowed_headers cors_allowed_methods
    cors_allowed_origin cpp_log_config cpu_launcher_args cpu_launcher_enable debug decode_input_request
    default_response_timeout default_service_handler default_startup_timeout default_workers_per_model
    disable_system_metrics disable_token_authorization enable_envvars_config enable_grpc_ssl enable_metrics_api
    enable_model_api grpc_inference_address grpc_inference_max_connection_age_grace_ms
    grpc_inference_max_connection_age_ms grpc_inference_port grpc_management_address
    grpc_management_max_connection_age_grace_ms grpc_management_max_connection_age_ms grpc_management_port
    inference_address initial_distribution_port initial_worker_port install_py_dep_per_model io_ratio ipex_enable
    ipex_gpu_enable job_queue_size keystore keystore_pass keystore_type limit_max_image_pixels load_models
    management_address max_request_size max_response_size metric_time_interval metrics_address metrics_config
    metrics_mode model_metrics_auto_detect model_server_home model_snapshot model_store models
    netty_client_threads number_of_gpu number_of_netty_threads prefer_direct_buffer private_key_file
    service_envelope system_metrics_cmd token_expiration_min ts_header_key_sequence_end ts_header_key_sequence_id
    ts_header_key_sequence_start unregister_model_timeout use_env_allowed_urls use_native_io workflow_store
    """.split()  # noqa: SIM905 - 70 lines otherwise
)
# Settings that this server sets itself, from its arguments and for the front.
OWN = {"disable_token_authorization", "load_models", "model_snapshot", "model_store", "token_expiration_min"} | {
    f"{api}_address" for api in APIS
}


def read_settings(file: Path) -> dict[str, str]:
    """The settings of a file such as ``config.properties``. Raises InputError if it cannot be read."""
    try:
        return dict(javaproperties.loads(file.read_text()))
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a bad escape
        raise InputError(f"{file}: {getattr(error, 'strerror', None) or error}") from error


def without_effect(settings: Mapping[str, str]) -> Iterator[str]:
    """A message for each setting that TorchServe does not have, or that this server sets itself."""
    for name in settings:
        if name not in KNOWN:
            yield f"TorchServe has no setting {name}{did_you_mean(name, KNOWN)}"
        elif name in OWN:
            yield f"{name} has no effect: perceptual serve sets it itself (see --port, --sockets, --no-tokens)"


def check_size(settings: Mapping[str, str]) -> None:
    """Raises InputError if the maximum size of a request, which the front limits, is not a number of bytes."""
    size = settings.get("max_request_size", "0").strip()
    if not (size.isascii() and size.isdecimal()):
        raise InputError(f"max_request_size: expected a number of bytes, got {size!r}")


def written(file: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Writes the shipped configuration with further settings; returns all of them."""
    properties = javaproperties.loads(CONFIG.read_text()) | {key: str(value) for key, value in settings.items()}
    file.write_text(javaproperties.dumps(properties, timestamp=False))
    return properties


def behind_front(folder: Path) -> dict[str, Any]:
    """Settings that put TorchServe's APIs behind the front, at sockets in a folder that only this user can open.

    Its tokens stay on for gRPC, whose ports every user of the machine can reach.
    """
    addresses = {f"{api}_address": f"unix:{folder / api}.sock" for api in APIS}
    return addresses | {"disable_token_authorization": "false", "token_expiration_min": FOREVER}
