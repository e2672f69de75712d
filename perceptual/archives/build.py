"""Builds archives: weights packaged with a handler as ``NAME.mar``, which any TorchServe serves.

An archive contains the modules of this package that are used at inference. So it runs on a TorchServe that has only
torch, numpy, Pillow and safetensors, and archives of different versions of this package work side by side.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version as installed_version
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..errors import ArchiveError, InputError, ServerError, WeightsError, did_you_mean
from ..files import write_atomically
from ..inference.metadata import (
    LARGE,
    LARGE_FACTOR,
    UPSCALER,
    facts_of_styles,
    find_weights,
    known_names,
    known_styles,
    named_weights,
    read_metadata,
)
from ..inference.styles import (
    ROW,
    TABLE,
    Weights,
    assemble,
    decode_weights,
    is_learned,
    read_style,
    read_weights,
    with_styles,
)
from ..naming import checked_name
from .manifest import COLLECTION, DAMAGE, DIGEST, FOLLOWS, MANIFEST, files_of_networks, read_archive

# The code in an archive: the modules of the package itself, and all of these subpackages.
ROOMS = ("inference", "worker")
# By task: a .py and a .yaml in the handlers package.
HANDLERS = {"style": "style_transfer", "super-resolution": "super_resolution"}
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip file can hold


class Packaged(NamedTuple):
    """An archive, and whether it had to be built."""

    path: Path
    built: bool


def package(
    weights: str | Path,
    model_store: str | Path,
    *,
    version: str | None = None,
    device_ids: Sequence[int] | None = None,
) -> Packaged:
    """Builds ``model_store/NAME.mar`` from ``NAME.safetensors``, unless it exists with the same content.

    The same inputs always give the same bytes. Description and version are from the weights' provenance.

    Args:
        weights: The weights file, of a network or of a learned style; the model is named after it.
        model_store: Folder of the archive; created if missing.
        version: Replaces the one in the provenance.
        device_ids: GPUs over which TorchServe spreads the workers in turn; by default over all of them.

    Raises:
        WeightsError: The weights file is missing, damaged, or of an unknown task.
        InputError: Its name or version cannot be served.
        ServerError: The archiver is not installed, or fails.
    """
    weights = Path(weights)
    network = assemble(weights)
    metadata = network.metadata
    name = checked_name(weights.stem, f"{weights}: rename the file")
    version = checked_name(version or str(metadata["provenance"].get("version") or "1.0"), f"{weights}: version")
    description = str(metadata["provenance"].get("description") or "")
    handler = HANDLERS[metadata["task"]]
    networks = {weights.stem: content_of(weights)} | (for_large() if metadata["task"] == "style" else {})
    contents = gather(networks, handler, device_ids)
    return build(Path(model_store), name, version, description, handler, contents)


def package_collection(
    name: str,
    weights: Sequence[str | Path],
    model_store: str | Path,
) -> Packaged:
    """Builds ``model_store/NAME.mar`` 1.0 of several networks, which one pool of workers serves, as :func:`package`.

    Args:
        name: Name of the model.
        weights: Style networks and learned styles of different names, and at most one super-resolution network for each
            factor. A learned style is added to its trunk, if that is among them.
        model_store: As for :func:`package`.

    Raises:
        WeightsError: As :func:`package`; or two networks have the same name or factor, or styles of the same name.
        InputError: Its name cannot be served.
        ServerError: As :func:`package`.
    """
    files = [Path(each) for each in weights]
    networks = {file.stem: read_metadata(file) for file in files}
    # Requests choose a network by its factor or its name.
    keys = [each["config"].get("scale") or name for name, each in networks.items()]
    if len(networks) < len(files) or len(set(keys)) < len(keys):
        raise WeightsError(
            "a collection can have only one network for each name, and for each factor of super-resolution"
        )
    check_styles(networks)
    name = checked_name(name, "--collection")
    description = f"Collection of {', '.join(networks)}"
    enlarging = {} if LARGE_FACTOR in keys else for_large()
    contents = gather(with_learned_styles(files) | enlarging, COLLECTION, None)
    return build(Path(model_store), name, "1.0", description, COLLECTION, contents)


def check_styles(networks: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises WeightsError if two networks have styles of the same name, given the metadata of each by name."""
    holders: dict[str, str] = {}
    for network, metadata in networks.items():
        if metadata["task"] == "super-resolution":
            continue
        for style in facts_of_styles(metadata, network):
            if (other := holders.setdefault(style["name"], network)) != network:
                raise WeightsError(f"{other} and {network} both have a style {style['name']}: leave out or rename one")


def repackage(
    archive: str | Path,
    folder: str | Path,
    *,
    version: str | None = None,
    device_ids: Sequence[int] | None = None,
    style: Path | None = None,
) -> Packaged:
    """Builds ``folder/NAME.mar`` from an archive of this package, with the code and the weights of that archive.

    Args:
        archive: From :func:`package` or :func:`package_collection`.
        folder: Folder of the new archive; not that of the old archive.
        version: Replaces the version.
        device_ids: Replaces the GPUs, as for :func:`package`.
        style: File of a learned style, to be added to its trunk in the archive.

    Raises:
        WeightsError: The style does not fit.
        InputError: The archive is of other software, or the version cannot be served.
        ArchiveError: It is missing or damaged.
        ServerError: The archiver is not installed, or fails.
    """
    source = read_archive(archive)
    if not source.is_ours:
        raise InputError(f"{archive} was not made by perceptual package, so its version and GPUs cannot be changed")
    with zipfile.ZipFile(archive) as file:
        names = [name for name in file.namelist() if name != MANIFEST]
        if bad := [name for name in names if name.startswith("/") or ".." in Path(name).parts]:
            raise InputError(f"{archive} has a file that would be written outside of it: {bad[0]}")
        contents = {name: file.read(name) for name in names}
    if style is not None:
        for name in networks_of_trunk(archive, trunk_of(style)):
            trunk = decode_weights(f"{archive}: {name}", contents[name])
            contents[name] = with_styles(name, trunk, [style]).encode()
    config = f"{source.handler}.yaml"
    contents[config] = with_devices(contents[config], device_ids)
    version = checked_name(version or source.version, "version")
    follows = source.version if style else ""
    return build(Path(folder), source.name, version, source.description, source.handler, contents, follows)


def trunk_of(style: str | Path) -> str:
    """The digest of the trunk of a learned style's file. Raises WeightsError if it is another file, or damaged."""
    return read_style(style).trunk


def networks_of_trunk(archive: str | Path, trunk: str) -> list[str]:
    """File names of the networks in an archive whose trunk has a digest; empty if it cannot be read."""
    return [name for name, network in networks_of(archive).items() if network.is_trunk and network.trunk == trunk]


def networks_of(archive: str | Path) -> dict[str, Weights]:
    """The networks in an archive, by file name; empty if it is missing or of other software."""
    try:
        with zipfile.ZipFile(archive) as file:
            names = files_of_networks(file)
            return {name: decode_weights(f"{archive}: {name}", file.read(name)) for name in names}
    except (*DAMAGE, WeightsError):
        return {}


def check_addable(archive: str | Path, style: str) -> None:
    """Raises InputError if any network of an archive has a style of this name."""
    for name, network in networks_of(archive).items():
        if style in names_of_styles(name, network):
            raise InputError(f"{archive} has a style {style} already: choose another name")


def holds_style(archive: str | Path, style: Path) -> bool:
    """Whether a network in an archive has the very style of a file, under its name. Raises WeightsError as trunk_of."""
    row = read_style(style).tensors[ROW]
    for name, network in networks_of(archive).items():
        names = names_of_styles(name, network)
        if network.is_trunk and network.trunk == trunk_of(style) and style.stem in names:
            return bool((network.tensors[TABLE][names.index(style.stem)] == row).all())
    return False


def names_of_styles(file: str, network: Weights) -> list[str]:
    """The names of a network's styles, in their order."""
    return [each["name"] for each in known_styles(network.metadata["provenance"], Path(file).stem)]


def find_source(file: str, model_store: Path) -> Path:
    """The weights file or archive at a path, or of a name: an archive in the model store, or a network.

    Raises:
        InputError: There is no such file or name.
    """
    path = Path(file)
    if file.startswith(("http:", "https:")):
        raise InputError(f"{file} is not on this machine: download it first")
    if path.suffix == ".safetensors":
        return path
    named = path.name == file
    if path.suffix == ".mar":
        return path if path.exists() or not named else model_store / path
    if named and (archive := model_store / f"{file}.mar").exists():
        return archive
    if weights := named_weights().get(file):
        return weights
    hint = did_you_mean(file, [*named_weights(), *(each.stem for each in model_store.glob("*.mar"))])
    raise InputError(
        f"{file} is neither weights (.safetensors) nor an archive (.mar), nor the name of an archive in {model_store} "
        f"or of a network{hint} ({known_names()})"
    )


def build(
    model_store: Path,
    name: str,
    version: str,
    description: str,
    handler: str,
    contents: dict[str, bytes],
    follows: str = "",
) -> Packaged:
    """Writes an archive with the contents from :func:`gather`, unless it exists and is current."""
    archive = model_store / f"{name}.mar"
    manifest = {"description": description} | ({FOLLOWS: follows} if follows else {})
    manifest[DIGEST] = digest(contents, [name, version, description, archiver_version()])
    if is_current(archive, manifest[DIGEST]):
        return Packaged(archive, built=False)
    # A private folder, as the archiver deletes $TMPDIR/<model name>.
    with tempfile.TemporaryDirectory(prefix="perceptual-") as folder:
        draft = run_archiver(Path(folder), name, version, handler, contents)
        write_atomically(archive, reproducible(draft, manifest))
    return Packaged(archive, built=True)


def is_style(file: str | Path) -> bool:
    """Whether a file holds a learned style. Raises WeightsError if it cannot be read."""
    return is_learned(read_metadata(file))


def content_of(file: Path) -> bytes:
    """The content of a weights file, with a learned style's trunk."""
    return assemble(file).encode() if is_style(file) else file.read_bytes()


def for_large() -> dict[str, bytes]:
    """The network that enlarges large photos, which are stylized at a smaller size."""
    return {f"{LARGE}/{UPSCALER}": find_weights(UPSCALER).read_bytes()}


def with_learned_styles(files: Sequence[Path]) -> dict[str, bytes]:
    """The contents of the weights files of a collection, by name; learned styles are added to their trunks.

    A style whose trunk is not among the files becomes a separate network.
    """
    styles = {file: read_style(file).trunk for file in files if is_learned(read_metadata(file))}
    if not styles:
        return {file.stem: content_of(file) for file in files}
    contents = {}
    for file in files:
        if file not in styles:
            network = read_weights(file)
            own = [style for style, trunk in styles.items() if network.is_trunk and trunk == network.trunk]
            contents[file.stem] = with_styles(file, network, own).encode() if own else content_of(file)
            styles = {style: trunk for style, trunk in styles.items() if style not in own}
    return contents | {style.stem: content_of(style) for style in styles}


def gather(weights: Mapping[str, bytes], handler: str, device_ids: Sequence[int] | None) -> dict[str, bytes]:
    """All files of an archive except the manifest, by path; the keys of ``weights`` have no ending."""
    package = Path(__file__).parents[1]
    modules = sorted([*package.glob("*.py"), *(file for room in ROOMS for file in (package / room).rglob("*.py"))])
    handlers = package_files("perceptual_handlers")
    contents = {file.relative_to(package.parent).as_posix(): file.read_bytes() for file in modules}
    contents |= {each: handlers.joinpath(each).read_bytes() for each in (f"{handler}.py", f"{handler}.yaml")}
    contents[f"{handler}.yaml"] = with_devices(contents[f"{handler}.yaml"], device_ids)
    return contents | {f"{name}.safetensors": content for name, content in weights.items()}


def with_devices(config: bytes, device_ids: Sequence[int] | None) -> bytes:
    """A model's yaml with its GPUs, or unchanged. TorchServe reads the GPUs only here; no request can change them."""
    if device_ids is None:
        return config
    return yaml.safe_dump(yaml.safe_load(config) | {"deviceIds": [*device_ids]}, sort_keys=False).encode()


def digest(contents: dict[str, bytes], facts: list[str]) -> str:
    """SHA-256 of everything that an archive depends on."""
    parts = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    return hashlib.sha256(json.dumps([parts, facts], sort_keys=True).encode()).hexdigest()


def is_current(archive: Path, expected: str) -> bool:
    """Whether an intact archive was built from inputs of this digest."""
    try:
        return read_archive(archive).digest == expected
    except (ArchiveError, InputError):
        return False


def run_archiver(folder: Path, name: str, version: str, handler: str, contents: dict[str, bytes]) -> Path:
    """Writes the contents to an empty folder and runs torch-model-archiver there."""
    own, extra, temporary = folder / "own", folder / "extra", folder / "tmp"
    temporary.mkdir()
    # These are passed separately: the archiver copies all files of --extra-files.
    named = f"{handler}.py", f"{handler}.yaml"
    for path, content in contents.items():
        file = (own if path in named else extra) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    command = [sys.executable, "-m", "model_archiver.model_packaging"]
    command += ["--model-name", name, "--version", version]
    command += ["--handler", str(own / f"{handler}.py"), "--config-file", str(own / f"{handler}.yaml")]
    command += ["--extra-files", str(extra), "--export-path", str(folder)]
    environment = os.environ | {"TMPDIR": str(temporary)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ServerError(f"torch-model-archiver failed for {name}: {reason}")
    return folder / f"{name}.mar"


def reproducible(draft: Path, additions: dict[str, str]) -> bytes:
    """An archive with additions to the manifest, and the same bytes in every run.

    Order, times and permissions of entries and the manifest's time of creation are set to constants.
    """
    with zipfile.ZipFile(draft) as file:
        entries = {name: file.read(name) for name in sorted(file.namelist())}
    manifest = json.loads(entries[MANIFEST]) | additions
    manifest["createdOn"] = "01/01/1980 00:00:00"  # TorchServe warns if there is none
    entries[MANIFEST] = json.dumps(manifest, indent=2, ensure_ascii=False).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            file.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def archiver_version() -> str:
    """The version of torch-model-archiver. Raises ServerError if it is not installed."""
    try:
        return installed_version("torch-model-archiver")
    except ImportError as error:
        raise ServerError("torch-model-archiver is not installed: pip install torch-model-archiver") from error
