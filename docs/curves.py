"""The loss curves of the style trainings, from their logs, for docs/results.md; a part of ``make gallery``."""

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot as plt

LINE = re.compile(r"(\d+)/\d+  content (\S+)  style (\S+)")
COLUMNS = 3

matplotlib.use("svg")
# Letters as letters, and the same file every time.
plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "perceptual", "font.size": 8})


def curves(logs: Sequence[Path]) -> bytes:
    """An SVG of content and style loss over the iterations, each on one logarithmic scale, with a plot for each log.

    Args:
        logs: ``train.log`` of each network, in folders of its name.
    """
    rows = -(-len(logs) // COLUMNS)
    figure, plots = plt.subplots(rows, COLUMNS, figsize=(9, 2 * rows), sharey=True, layout="constrained", squeeze=False)
    for plot in plots.flat[len(logs) :]:
        plot.set_axis_off()
    for log, plot in zip(logs, plots.flat, strict=False):
        iterations, content, style = read_log(log.read_text())
        plot.semilogy(iterations, content, label="content")
        plot.semilogy(iterations, style, label="style")
        plot.set_title(log.parent.name)
        plot.grid(alpha=0.3)
    plots.flat[0].legend()
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()


def read_log(text: str) -> np.ndarray:
    """Iterations, content and style losses of a log, 3×N.

    A log may hold several trainings, each of which began with the weights of the one before, after a line that begins
    with #; and iterations twice where one was resumed from a checkpoint: the later ones count.
    """
    done: list[tuple[int, float, float]] = []
    for training in re.split(r"^#.*$", text, flags=re.MULTILINE):
        before = done[-1][0] if done else 0
        for line in LINE.finditer(training):
            iteration = before + int(line[1])
            while done and done[-1][0] >= iteration:
                done.pop()
            done.append((iteration, float(line[2]), float(line[3])))
    return np.array(done).T
