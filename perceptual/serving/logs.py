"""TorchServe's logs, and the causes of failures in them, which its API does not report."""

import re
import time
from collections.abc import Sequence
from pathlib import Path

from ..archives.manifest import Archive

CONSOLE = "console.log"  # TorchServe's standard output, which is short; its log files have the rest


class Logs:
    """The logs of a server.

    Args:
        folder: In which they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = False  # whether a message has named the folder, which must then not be removed

    @property
    def console(self) -> Path:
        """The file for TorchServe's standard output."""
        return self.folder / CONSOLE

    def where(self) -> str:
        """A message that names the folder, which is then kept when the server stops."""
        self.kept = True
        return f"the logs are in {self.folder}"

    def read(self, name: str) -> str:
        """One of the logs, or nothing if it does not exist yet."""
        file = self.folder / name
        return file.read_text(errors="replace") if file.exists() else ""

    def load_failure(self, archive: Archive) -> str | None:
        """Why a model's worker died, which TorchServe keeps restarting; None if none died."""
        worker = rf" W-\d+-{re.escape(archive.name)}_{re.escape(archive.version)}"
        if not re.search(rf"{worker} .* -> WORKER_(STOPPED|ERROR)", self.read("ts_log.log")):
            return None
        time.sleep(0.5)  # the worker's last output reaches its log a little later
        output = re.findall(rf"{worker}-std(?:out|err) MODEL_LOG - (.*)", self.read("model_log.log"))
        raised = exceptions(output)
        if not raised:
            return "its worker died without an exception"
        # If the import of a handler fails, TorchServe looks for one of its own with that name, which fails too.
        return raised[0] if "ts.torch_handler." in raised[-1] else raised[-1]

    def exit_reason(self, had_started: bool) -> str:
        """Why TorchServe ended, from its standard output.

        Args:
            had_started: Whether it had served requests: then errors before the last line are errors of requests.
        """
        lines = [line.strip() for line in self.read(CONSOLE).splitlines() if line.strip() and line[:4] != "\tat "]
        if had_started:
            lines = lines[-1:]
        errors = [line for line in lines if re.match(r"[\w.]+(Exception|Error)\b|Invalid configuration", line)]
        # If it was killed, the first line it printed is also the last.
        last = [line for line in lines[-1:] if line != "Model server started."]
        return f"{(errors or last or ['it printed no reason'])[0]}; {self.where()}"


def exceptions(lines: Sequence[str]) -> list[str]:
    """The last line of each traceback, which has the exception."""
    starts = [index for index, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    ends = (next((line for line in lines[start + 1 :] if line and not line.startswith(" ")), None) for start in starts)
    return [line for line in ends if line]
