"""Data for the page: the styles and scales of the registered models, and the status of the server."""

import asyncio
import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import ClientError

from ...archives.contents import Contents, read_contents
from ...errors import PerceptualError
from ..snapshots import read_held
from ..status import Metrics, ModelStatus, measured_here, model_status, read_metrics
from .replies import Refusal, unavailable
from .torchserve import Gone, TorchServe

logger = logging.getLogger(__name__)


class About:
    """Combines TorchServe's descriptions of models with the contents of archives; each archive is read once.

    Args:
        torchserve: The client of TorchServe.
        model_store: The folder of archives.
        state: The folder of :data:`perceptual.serving.snapshots.HELD`.
    """

    def __init__(self, torchserve: TorchServe, model_store: Path, state: Path) -> None:
        self.torchserve = torchserve
        self.model_store = model_store
        self.state = state
        self.known: dict[tuple[str, int, int], Contents | None] = {}

    async def models(self) -> list[dict[str, Any]]:
        """The default version of each model of this package. Raises a refusal while TorchServe does not answer."""
        found = []
        for name in await self.names():
            for model in await self.torchserve.describe(quote(name)):
                contents = await self.contents(model.archive)
                if contents and (contents.styles or contents.scales):
                    found.append({"name": model.name, "version": model.version, **asdict(contents)})
        return found

    async def names(self) -> list[str]:
        """Names of the registered models. Raises a refusal while TorchServe does not answer."""
        names = await self.torchserve.names()
        if names is None:
            raise unavailable("torchserve", "TorchServe is starting")
        return names

    async def contents(self, archive: str) -> Contents | None:
        """The contents of an archive of the model store; None if it cannot be read."""
        file = self.model_store / archive
        try:
            facts = file.stat()
        except OSError:
            return None
        key = (archive, facts.st_mtime_ns, facts.st_size)
        if key not in self.known:
            self.known[key] = await asyncio.to_thread(contents_of, file)
        return self.known[key]

    async def status(self) -> list[dict[str, Any]]:
        """Every version of every model, as ``perceptual status`` shows it. Raises a refusal as :meth:`models`."""
        metrics = await self.metrics()
        held = await asyncio.to_thread(read_held, self.state)
        names = await self.names()
        models = [each for name in names for each in await self.torchserve.describe(f"{quote(name)}/all")]
        local = await asyncio.to_thread(lambda: [measured_here(each) for each in models])
        return [as_json(model_status(each, metrics, held)) for each in local]

    async def metrics(self) -> Metrics:
        """The handlers' metrics; empty while TorchServe does not answer."""
        try:
            async with await self.torchserve.send("metrics", "GET", "/metrics") as reply:
                return read_metrics(await reply.text())
        except (Gone, Refusal, ClientError, OSError):
            return read_metrics("")


def contents_of(file: Path) -> Contents | None:
    """The contents of an archive; None if it cannot be read, which is logged."""
    try:
        return read_contents(file)
    except (PerceptualError, OSError) as error:
        logger.warning("the page does not show %s: %s", file.name, error)
        return None


def as_json(status: ModelStatus) -> dict[str, Any]:
    """A model's status as JSON; a time beyond the histogram's last bound is null, as JSON has no infinity."""
    stages = {name: [each if math.isfinite(each) else None for each in times] for name, times in status.stages.items()}
    return {**asdict(status), "stages": stages, "healthy": status.healthy}
