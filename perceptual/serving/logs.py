"""TorchServe's logs, and what they tell about a failure, as its API does not."""

import re
import time
from collections.abc import Sequence
from pathlib import Path

from ..archives.manifest import Archive

CONSOLE = "console.log"  # what is printed, which is little; all else is in TorchServe's own logs, which are rotated


class Logs:
    """The logs of a server.

    Args:
        folder: In which they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = False  # whether someone was told to look there

    @property
    def console(self) -> Path:
        """Where what TorchServe prints belongs."""
        return self.folder / CONSOLE

    def where(self) -> str:
        """Where the logs are; whoever is told so finds them even after the end."""
        self.kept = True
        return f"the logs are in {self.folder}"

    def read(self, name: str) -> str:
        """One of the logs, or nothing if it does not exist yet."""
        file = self.folder / name
        return file.read_text(errors="replace") if file.exists() else ""

    def load_failure(self, archive: Archive) -> str | None:
        """Why a model's worker died, while TorchServe starts it again and again; None if none did."""
        worker = rf" W-\d+-{re.escape(archive.name)}_{re.escape(archive.version)}"
        if not re.search(rf"{worker} .* -> WORKER_(STOPPED|ERROR)", self.read("ts_log.log")):
            return None
        time.sleep(0.5)  # the worker's last words take another way to the log
        said = re.findall(rf"{worker}-std(?:out|err) MODEL_LOG - (.*)", self.read("model_log.log"))
        raised = exceptions(said)
        if not raised:
            return "its worker died without an exception"
        # TorchServe takes a handler that fails to import for the name of one of its own, and fails on that again.
        return raised[0] if "ts.torch_handler." in raised[-1] else raised[-1]

    def exit_reason(self, had_started: bool) -> str:
        """Why TorchServe ended, from what it printed.

        Args:
            had_started: Whether it had served requests: then errors before its last word were those of requests.
        """
        lines = [line.strip() for line in self.read(CONSOLE).splitlines() if line.strip() and line[:4] != "\tat "]
        if had_started:
            lines = lines[-1:]
        telling = [line for line in lines if re.match(r"[\w.]+(Exception|Error)\b|Invalid configuration", line)]
        # Killed, it ends on its first words.
        last = [line for line in lines[-1:] if line != "Model server started."]
        return f"{(telling or last or ['it did not say why'])[0]}; {self.where()}"


def exceptions(lines: Sequence[str]) -> list[str]:
    """The line of each traceback that tells the exception."""
    starts = [index for index, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    ends = (next((line for line in lines[start + 1 :] if line and not line.startswith(" ")), None) for start in starts)
    return [line for line in ends if line]
