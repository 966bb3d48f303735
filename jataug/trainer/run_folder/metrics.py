"""Metrics as JSON lines, as a picture, and as TensorBoard events."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...atomic import replace_file
from ...errors import MissingExtra

__all__ = ["Events", "append", "draw_curves", "read_metrics", "truncate"]


def append(path: Path, line: Mapping[str, Any]) -> int:
    """Add a line, and return how many bytes the file has then."""
    with path.open("ab") as file:
        file.write(f"{json.dumps(line, sort_keys=True)}\n".encode())
        return file.tell()


def truncate(path: Path, size: int) -> None:
    """Cut off what a run that was killed wrote after its last checkpoint."""
    if path.exists():
        with path.open("rb+") as file:
            file.truncate(size)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def draw_curves(metrics: list[dict[str, Any]], path: Path) -> bool:
    """Draw losses and accuracies by epoch; return whether matplotlib is there to do it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [line["epoch"] + 1 for line in metrics]
    left.plot(epochs, [line["loss"] for line in metrics], marker=".")
    left.set(xlabel="epoch", ylabel="loss (smoothed labels)")
    names = {
        "accuracy": "training batches",
        "clean_accuracy": "held out, clean",
        "robust_accuracy": "held out, attacked",
    }
    for key, label in names.items():
        points = [(e, line[key]) for e, line in zip(epochs, metrics, strict=True) if line.get(key)
                  is not None]  # fmt: skip
        if points:
            right.plot(*zip(*points, strict=True), marker=".", label=label)
    right.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1))
    right.legend(loc="lower right", fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    with replace_file(path) as draft:
        figure.savefig(draft, dpi=120, format="png")
    return True


class Events:
    """TensorBoard's event files, in the folder "events" of a run.

    Args:
        root: the run.
        step: from where the run goes on; events beyond it are struck out.

    Raises:
        MissingExtra: tensorboard is not installed.
    """

    def __init__(self, root: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtra(
                "event files need tensorboard, which is not installed: pip install tensorboard"
            ) from None
        self._writer: Any = SummaryWriter(str(root / "events"), purge_step=step)

    def write(self, line: Mapping[str, Any]) -> None:
        """Add the numbers of a line of metrics."""
        for name, value in line.items():
            if isinstance(value, float):
                self._writer.add_scalar(name, value, line["step"])
        self._writer.flush()
