"""jataug verify."""

from pathlib import Path
from typing import Any

import click

from jataug.artifact import is_artifact

from .command import Command, FailedCheck
from .options import PATH, device_option, model_options, preprocessing, threads_option
from .progress import Bar

__all__ = ["command"]

_SHOWN = 20
"""How many problems are printed."""


@click.command("verify", cls=Command)
@click.argument("destination", type=PATH)
@click.option("--source", type=PATH, help="The clean images; default the path in the index.")
@click.option("--model", type=PATH, help="An artifact or a classifier to measure again with.")
@model_options
@device_option
@threads_option
def command(
    destination: Path,
    source: Path | None,
    model: Path | None,
    device: str,
    threads: int | None,
    **given: Any,
) -> None:
    """Read the data set in DESTINATION back and check it.

    Always: every file's hash, counts, labels. With the source: the budgets. With --model: its
    accuracy on the files as they are stored. Exit code 1 where anything is wrong.

    \b
    jataug verify adversarial/
    jataug verify adversarial/ --source photos/ --model attack.onnx
    """
    from jataug.generator import verify

    size, prepared = given.pop("size"), preprocessing(given)
    judge: Any = model
    if model is not None and not is_artifact(model):
        if threads is not None:
            raise click.UsageError("--threads: expected an attack artifact as --model")
        from jataug.export.predict import predictor

        judge = predictor(model, prepared, size=size, device=device)
    with Bar("verify") as bar:
        report = verify(destination, source, judge, bar, device=device, threads=threads)
    for problem in report.problems[:_SHOWN]:
        click.echo(problem, err=True)
    if len(report.problems) > _SHOWN:
        click.echo(f"... and {len(report.problems) - _SHOWN} more", err=True)
    click.echo(f"{destination}: {report.images} images, {len(report.problems)} problems")
    click.echo(f"budget: {_budget(report)}")
    if report.adversarial_accuracy is not None:
        click.echo(
            f"accuracy on the stored files: {report.adversarial_accuracy:.4f}, "
            f"{report.changed_predictions} predictions differ from the records"
        )
    if not report.ok:
        raise FailedCheck(f"{destination} does not verify")


def _budget(report: Any) -> str:
    if report.budget == "not checked":
        return f"not checked ({report.budget_note})"
    worst = (
        "" if report.worst_pixel_excess is None else f", pixels {report.worst_pixel_excess:+.2g}"
    )
    flow = "" if report.worst_flow is None else f", longest flow {report.worst_flow:.4g} px"
    how = f" ({report.budget_note})" if report.budget_note else ""
    return f"{report.budget}{how}; worst against the allowed{worst}{flow}"
