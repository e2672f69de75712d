"""Output of a running training: a progress bar, a log, TensorBoard scalars and sample pictures."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter
from torchvision.transforms.v2.functional import pil_to_tensor

from perceptual.files import naming

INTERVAL = 60.0  # seconds between two lines in a log file


class Record:
    """A training's record, on the screen and in its folder: ``train.log``, TensorBoard's events, sample pictures.

    Args:
        folder: The run's folder.
        start: Iterations done before, in an earlier run.
        iterations: Iterations in all.
        batch_size: Photos per iteration, for the rate.
    """

    def __init__(self, folder: Path, start: int, iterations: int, batch_size: int) -> None:
        self.folder = folder
        self.iterations = iterations
        self.batch_size = batch_size
        self.marked = start, time.monotonic()
        self.last_note = time.monotonic()
        self.console = Console(stderr=True)
        columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self.progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.bar = self.progress.add_task("", completed=start, total=iterations)
        (folder / "evolution").mkdir(parents=True, exist_ok=True)
        self.file = (folder / "train.log").open("a", encoding="utf-8", errors="backslashreplace")
        # Drops what an earlier run logged after its last checkpoint.
        self.board = SummaryWriter(folder, purge_step=start + 1)

    def __enter__(self) -> "Record":
        self.progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()
        self.board.close()
        self.file.close()

    def note(self, line: str) -> None:
        """Writes a line on the screen and in the log."""
        self.last_note = time.monotonic()
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        with naming(self.file.name):
            self.file.write(line + "\n")
            self.file.flush()

    def advance(self) -> None:
        """Counts one iteration; without a terminal, writes a line if none was written for a minute."""
        self.progress.advance(self.bar)
        if not self.console.is_terminal and time.monotonic() - self.last_note > INTERVAL:
            self.note(f"{self.progress.tasks[0].completed:.0f}/{self.iterations}")

    def losses(self, done: int, losses: Mapping[str, float], lr: float) -> None:
        """Records mean losses since the last time, after ``done`` iterations, with the rate and the time left."""
        (before, then), now = self.marked, time.monotonic()
        self.marked = done, now
        seconds = (now - then) / max(1, done - before)
        pace = f"{self.batch_size / seconds:.1f} images/s, {duration(seconds * (self.iterations - done))} left"
        total = sum(losses.values())
        terms = "  ".join(f"{name} {value:.4g}" for name, value in {**losses, "total": total}.items())
        self.note(f"{done}/{self.iterations}  {terms}  {pace}")
        for name, value in {**losses, "total": total, "lr": lr}.items():
            self.board.add_scalar(name, value, done)

    def pictures(self, done: int, sheet: Image.Image, frame: Image.Image) -> None:
        """Writes the newest sample sheet, and adds a frame to the animation."""
        for picture, file in ((sheet, "samples.png"), (frame, f"evolution/{done:07}.png")):
            with naming(self.folder / file):
                picture.save(self.folder / file)
        self.board.add_image("samples", pil_to_tensor(sheet), done)

    def figures(self, done: int, figures: Mapping[str, float]) -> None:
        """Records figures that belong to the sample sheet."""
        for name, value in figures.items():
            self.board.add_scalar(name, value, done)

    def unusable(self, files: Iterable[Path]) -> None:
        """Counts and names the files that were skipped."""
        if names := sorted(str(file) for file in files):
            self.note(f"{len(names)} image files were skipped: damaged, or too small for a crop: {', '.join(names)}")


def duration(seconds: float) -> str:
    """``45 s``, ``12 min`` or ``3 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
