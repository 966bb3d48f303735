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
@click.option(
    "--source", type=PATH,
    help="The clean images. [default: the path in the data set's index, if it exists]",
)  # fmt: skip
@click.option(
    "--model", type=PATH,
    help="Attack artifact or classifier that predicts the stored images again.",
)  # fmt: skip
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
    """Read the data set in DESTINATION and check it.

    It always checks the hash of every file, the counts and the labels. If the source is there, it
    also checks the budgets. With --model it measures accuracy on the stored files. If that model is
    the attacked one, its preprocessing is taken from the data set, unless an option gives it. The
    exit code is 1 if any check fails.

    \b
    jataug verify adversarial/
    jataug verify adversarial/ --source photos/ --model attack.onnx
    """
    from jataug.dataset import verify

    if threads is not None and model is not None and not is_artifact(model):
        raise click.UsageError(
            "--threads: works only with an attack artifact as --model; leave it out"
        )
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
        click.echo(f"failed: {report.failed} images have logits that are not finite; kept clean")
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
    """Return the model for verify, and a hint on its preprocessing if predictions differ."""
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
            click.echo(f"{model}: preprocessing from the data set: {_typed(used)}")
    return predictor(proto, used, size=size, device=device), _doubt(model, used, recorded)


def _asked(given: dict[str, Any]) -> bool:
    """Whether a preprocessing option is on the command line or in the configuration file."""
    source = click.get_current_context().get_parameter_source
    return any(
        source(name) not in (None, ParameterSource.DEFAULT) for name in given if name != "size"
    )


def _recorded(index: dict[str, Any]) -> Preprocessing | None:
    """Return the preprocessing of the attacked model, or None if the data set lacks it."""
    try:
        return Preprocessing.from_dict(index["model"]["preprocessing"])
    except (KeyError, TypeError, ModelError):
        return None


def _doubt(model: Path, used: Preprocessing, recorded: Preprocessing | None) -> str:
    if recorded is None:
        return (
            f"measured with {_typed(used)}; the data set does not record the preprocessing of the "
            f"attacked model. If {model} is that model, give --mean, --std and --scale as at its "
            "export"
        )
    if used.determined() == recorded.determined():
        return ""
    return (
        f"measured with {_typed(used)}, but the data set was made with {_typed(recorded)}. If "
        f"{model} is the attacked model, this explains the difference; give the same options"
    )


def _typed(used: Preprocessing) -> str:
    words = [word for name, value in used.to_options().items() for word in (f"--{name}", value)]
    return shlex.join(words) or "no model options"
