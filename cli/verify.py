"""jataug verify."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from jataug.artifact import is_artifact
from jataug.errors import ModelError
from jataug.preprocessing import Preprocessing

from .budgets import budget_lines
from .command import Command, FailedCheck
from .options import (
    PATH,
    class_order_option,
    device_option,
    model_options,
    preprocessing,
    threads_option,
)
from .progress import Bar

if TYPE_CHECKING:
    from jataug.data import ClassOrder

__all__ = ["command"]

_SHOWN = 20
"""How many problems are printed."""


@click.command("verify", cls=Command)
@click.argument("destination", type=PATH)
@click.option("--source", type=PATH, help="The clean images; default the path in the index.")
@click.option("--model", type=PATH, help="An artifact or a classifier to measure again with.")
@class_order_option
@model_options
@device_option
@threads_option
def command(
    destination: Path,
    source: Path | None,
    model: Path | None,
    class_order: "ClassOrder | None",
    device: str,
    threads: int | None,
    **given: Any,
) -> None:
    """Read the data set in DESTINATION back and check it.

    Always: every file's hash, counts, labels. With the source: the budgets. With --model: its
    accuracy on the files as they are stored; a classifier that is the one that was attacked sees
    images as the data set records it, unless a model option says otherwise. Exit code 1 where
    anything is wrong.

    \b
    jataug verify adversarial/
    jataug verify adversarial/ --source photos/ --model attack.onnx
    """
    from jataug.dataset import verify

    if threads is not None and model is not None and not is_artifact(model):
        raise click.UsageError("--threads: expected an attack artifact as --model")
    judge, doubt = (model, "") if model is None else _judge(model, destination, given, device)
    with Bar("verify") as bar:
        report = verify(
            destination, source, judge, bar,
            class_order=class_order, device=device, threads=threads,
        )  # fmt: skip
    for problem in report.problems[:_SHOWN]:
        click.echo(problem, err=True)
    if len(report.problems) > _SHOWN:
        click.echo(f"... and {len(report.problems) - _SHOWN} more", err=True)
    click.echo(f"{destination}: {report.images} images, {len(report.problems)} problems")
    if report.failed:
        click.echo(f"failed: {report.failed} images, whose logits were not finite, are kept clean")
    for line in budget_lines(report):
        click.echo(line)
    if report.adversarial_accuracy is not None:
        click.echo(
            f"accuracy on the stored files: {report.adversarial_accuracy:.4f}, "
            f"{report.changed_predictions} predictions differ from the records"
        )
    if report.changed_predictions and doubt:
        click.echo(f"preprocessing: {doubt}")
    if not report.ok:
        raise FailedCheck(f"{destination} does not verify")


def _judge(model: Path, destination: Path, given: dict[str, Any], device: str) -> tuple[Any, str]:
    """Return what predicts, and what to say of its preprocessing where predictions differ."""
    from jataug.dataset.open import read_index

    index = read_index(destination)
    if is_artifact(model):
        return model, ""
    from jataug.export.gradient.predict import predictor
    from jataug.export.model.load import load_model, model_digest

    asked = _asked(given)
    size, used = given["size"], preprocessing(given)
    proto, recorded = load_model(model), _recorded(index)
    if recorded is not None and not asked and model_digest(proto) == index["model"]["sha256"]:
        used = recorded
        if used.to_options():
            click.echo(f"{model}: with {_typed(used)}, as the data set records of this model")
    return predictor(proto, used, size=size, device=device), _doubt(model, used, recorded)


def _asked(given: dict[str, Any]) -> bool:
    """Whether an option of preprocessing was typed, or is in the configuration file."""
    source = click.get_current_context().get_parameter_source
    return any(
        source(name) not in (None, ParameterSource.DEFAULT) for name in given if name != "size"
    )


def _recorded(index: dict[str, Any]) -> Preprocessing | None:
    """Return the preprocessing of the model that was attacked, where the data set has it."""
    try:
        return Preprocessing.from_dict(index["model"]["preprocessing"])
    except (KeyError, TypeError, ModelError):
        return None


def _doubt(model: Path, used: Preprocessing, recorded: Preprocessing | None) -> str:
    if recorded is None:
        return (
            f"measured with {_typed(used)}; the data set does not record what was attacked with; "
            f"if {model} is that model, give --mean, --std and --scale as at its export"
        )
    if used.determined() == recorded.determined():
        return ""
    return (
        f"measured with {_typed(used)}, but the data set was made with {_typed(recorded)}; if "
        f"{model} is the model that was attacked, that is why"
    )


def _typed(used: Preprocessing) -> str:
    words = [word for name, value in used.to_options().items() for word in (f"--{name}", value)]
    return shlex.join(words) or "no model options"
