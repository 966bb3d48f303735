"""jataug evaluate."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jataug.budget import FlowBudget, Norm

from .command import Command
from .options import (
    PATH,
    device_option,
    model_options,
    on_error_option,
    open_images,
    preprocessing,
    say_classes,
    source_options,
    threads_option,
)
from .progress import ProgressBar
from .robustness import robustness_lines

if TYPE_CHECKING:
    from jataug.evaluation.report.contents import Report
    from jataug.evaluation.runner import Progress

__all__ = ["command"]


def _names(value: Any) -> list[str]:
    """Read names separated by commas; from a TOML file also a list."""
    return [str(name) for name in (value if isinstance(value, list) else str(value).split(","))]


@click.command("evaluate", cls=Command)
@click.argument("models", type=PATH, nargs=-1, required=True, metavar="MODEL... SOURCE")
@click.option("-o", "--output", type=PATH, required=True, help="A new folder, or one to go on in.")
@click.option(
    "--attacks", type=_names, metavar="NAMES",
    help="Separated by commas, with options where wanted: pgd:steps=50:restarts=3,flow."
)  # fmt: skip
@click.option("--suite", type=click.Choice(["quick", "strong"]), default="quick", show_default=True)
@click.option("--flow", default="0.3", show_default=True, metavar="R", help="Flow radius, pixels.")
@click.option("--flow-norm", type=click.Choice(["l2", "linf"]), default="l2", show_default=True)
@click.option(
    "--pixel", default="8/255", show_default=True, metavar="R",
    help="Pixel radius (linf), of images in [0, 1]: 8/255 or 0.03."
)  # fmt: skip
@click.option(
    "--transfer", type=PATH, multiple=True, metavar="OTHER",
    help="A model that sees the adversarial images too, and whose own are tried; may be repeated."
)  # fmt: skip
@click.option("--no-curves", is_flag=True, help="Leave out curves, map and smallest radii.")
@click.option("--no-sanity", is_flag=True, help="Leave out the checks against masked gradients.")
@click.option(
    "--measured", type=click.Choice(["float", "uint8"]), default="float", show_default=True,
    help="What is measured: images as found, or at 8 bits."
)  # fmt: skip
@click.option(
    "--format", "formats", type=click.Choice(["json", "md", "html"]), multiple=True,
    default=("html",), show_default=True, help="Besides report.json; may be repeated."
)  # fmt: skip
@click.option("--batch-size", type=int, help="Images a call; by default by their size.")
@click.option("--limit", type=int, metavar="N", help="Use the first N images.")
@source_options
@on_error_option
@model_options
@device_option
@click.option("--tf32", is_flag=True, help="On CUDA: faster, three digits less.")
@threads_option
def command(models: tuple[Path, ...], output: Path, **given: Any) -> None:
    """Attack one or more MODELs on the images of SOURCE, and report how robust they are.

    MODEL is a classifier as an .onnx file; the model options hold for all of them. What is measured
    lies in report.json; the page for people is report.html. Run again, it goes on where it was
    stopped. Where gradients look masked, the report says so, and the exit code is 0 all the same.

    \b
    jataug evaluate model.onnx photos/ -o robustness/ --resize 256 --crop 224
    jataug evaluate a.onnx b.onnx images.npz -o both/ --limit 500 --suite strong
    """
    from jataug.evaluation import evaluate

    if len(models) < 2:
        raise click.UsageError("expected at least one MODEL, and the SOURCE of images after it")
    if given.pop("epoch"):
        raise click.UsageError("--epoch: an evaluation has one epoch; use --seed")
    *paths, source = models
    formats = given.pop("formats")
    with _Bars("") as bars:
        images = open_images(source)
        say_classes(images, given)
        report = evaluate(paths, images, output, progress=bars, **_options(given))
    _write(formats, output, report)
    for skip in report.source.get("skipped", ()):
        click.echo(f"skipped: {skip['reason']}", err=True)
    for found in report.models:
        for line in robustness_lines(found, report.labels):
            click.echo(line)
        for warning in found.warnings:
            click.echo(f"Warning: {found.name}: {warning}", err=True)
    shown = [name for name in ("report.html", "report.md") if (output / name).exists()]
    click.echo(f"  {', '.join(str(output / name) for name in ['report.json', *shown])}")


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of evaluate."""
    norm: Norm = given.pop("flow_norm")
    return {
        "flow": FlowBudget(given.pop("flow"), norm),
        "curves": not given.pop("no_curves"),
        "sanity": not given.pop("no_sanity"),
        "preprocessing": preprocessing(given),
        "command": shlex.join(click.get_current_context().meta["typed"]),
        **given,
    }


def _write(formats: Sequence[str], output: Path, report: "Report") -> None:
    if "md" in formats:
        from jataug.atomic import write_file
        from jataug.evaluation.report.markdown import markdown

        write_file(output / "report.md", markdown(report).encode("utf-8"))
    if "html" in formats:
        from jataug.evaluation.report.html import write_html

        write_html([output / "report.json"], output / "report.html")


class _Bars(ProgressBar):
    """A bar for each attack, one after the other."""

    def __call__(self, progress: "Progress") -> None:
        """Show the progress."""
        if progress.part != self.what:
            self.start(progress.part)
        self.show(progress.done, progress.total)
