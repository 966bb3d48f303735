"""jataug train."""

import os
import sys
import time
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from .command import Command
from .options import PATH, attack_config, attack_options, steps_option
from .progress import terminal_bar
from .train_options import train_options

if TYPE_CHECKING:
    from jataug.trainer import TrainProgress

__all__ = ["command"]

_EVERY = 10.0
"""Seconds between two lines of progress, where stderr is no terminal."""


@click.command("train", cls=Command)
@click.argument("source", type=PATH)
@train_options
@attack_options
@steps_option(1)
def command(**given: Any) -> None:
    """Train a classifier on SOURCE with adversarial images, and write the run to a folder.

    SOURCE is a folder of class folders, an .npz file with images and labels, or an idx file of the
    MNIST family. The same command, run again, resumes after the last checkpoint. The attack options
    (--preset to --steps) set the attack that training uses.

    \b
    jataug train train-images-idx3-ubyte.gz -o run --model small-cnn \\
        --flow 1 --pixel 0.1
    jataug train photos/ -o run --model resnet-18-imagenet --resize 256 \\
        --crop 224 --mix attack=0.5 --mix dataset:made/=0.25 --mix clean=0.25
    torchrun --nproc-per-node 4 --no-python jataug train photos/ -o run \\
        --resize 36 --crop 32
    """
    from jataug.trainer import Part, TrainConfig, train

    attack = attack_config(given)
    mixture = tuple(Part.parse(text) for text in given.pop("mixture"))
    paths = {name: str(given.pop(name)) for name in ("source", "output")}
    init = None if given["init"] is None else str(given["init"])
    config = TrainConfig(**{**given, **paths, "init": init, "attack": attack, "mixture": mixture})
    with _Bar() as bar:
        report = train(config, progress=bar, say=partial(click.echo, err=True))
    if not _is_first_process():
        return
    click.echo(report.message)
    if report.loss is not None:
        click.echo(f"loss: {report.loss:.4f}")
    if report.clean_accuracy is not None and report.best_epoch is not None:
        robust = report.robust_accuracy
        attacked = "" if robust is None else f", attacked {robust:.4f}"
        click.echo(
            f"held out, best of epoch {report.best_epoch + 1}: clean {report.clean_accuracy:.4f}"
            f"{attacked}"
        )
    click.echo(f"next: jataug export {report.output} -o attack.onnx")


def _is_first_process() -> bool:
    """Whether this process prints: of those that torchrun started, only the first one does."""
    return os.environ.get("RANK", "0") == "0"


class _Bar:
    """A progress display; call it with a TrainProgress after every step."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._began = self._last = time.monotonic()
        self._first: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, progress: "TrainProgress") -> None:
        """Show the progress."""
        if sys.stderr.isatty():
            self._draw(progress)
        else:
            self._line(progress)

    def _draw(self, progress: "TrainProgress") -> None:
        if self._bar is None:
            self._bar = terminal_bar("train", progress.steps, "step", progress.step - 1)
        self._bar.set_postfix_str(_words(progress), refresh=False)
        self._bar.update(progress.step - self._bar.n)

    def _line(self, progress: "TrainProgress") -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._began, self._last = progress.step, now, now
            return
        if now - self._last < _EVERY and progress.step < progress.steps:
            return
        self._last = now
        rate = (progress.step - self._first) / max(now - self._began, 1e-9)
        left = (progress.steps - progress.step) / rate
        click.echo(
            f"train: step {progress.step}/{progress.steps}, {left:.0f} s left, {_words(progress)}",
            err=True,
        )


def _words(progress: "TrainProgress") -> str:
    words = (
        f"epoch {progress.epoch + 1}, loss {progress.loss:.3f}, accuracy {progress.accuracy:.3f}"
    )
    if progress.clean_accuracy is not None:
        words += f", held out {progress.clean_accuracy:.3f}"
    if progress.robust_accuracy is not None:
        words += f", attacked {progress.robust_accuracy:.3f}"
    return words
