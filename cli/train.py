"""jataug train."""

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from .command import Command
from .options import PATH, attack_config, attack_options, steps_option
from .progress import ProgressBar
from .train_options import train_options

if TYPE_CHECKING:
    from jataug.trainer import TrainProgress

__all__ = ["command"]


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
    with _Bar("train", "step", "step") as bar:
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


class _Bar(ProgressBar):
    """A progress display; call it with a TrainProgress after every step."""

    def __call__(self, progress: "TrainProgress") -> None:
        """Show the progress."""
        self.show(progress.step, progress.steps, _words(progress), before=progress.step - 1)


def _words(progress: "TrainProgress") -> str:
    words = (
        f"epoch {progress.epoch + 1}, loss {progress.loss:.3f}, accuracy {progress.accuracy:.3f}"
    )
    if progress.clean_accuracy is not None:
        words += f", held out {progress.clean_accuracy:.3f}"
    if progress.robust_accuracy is not None:
        words += f", attacked {progress.robust_accuracy:.3f}"
    return words
