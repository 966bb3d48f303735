"""jataug demo."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from .command import Command, FailedCheck
from .options import PATH, device_option, threads_option
from .progress import Bar

__all__ = ["command"]


@click.command("demo", cls=Command)
@click.option(
    "-o", "--output", type=PATH, required=True, help="Folder for the results, new or empty."
)
@device_option
@threads_option
def command(output: Path, device: str, threads: int | None) -> None:
    """Run export, generate, verify and preview on a classifier and 512 images from the package.

    \b
    jataug demo -o demo-out
    """
    from jataug.demo import run_demo

    with Bar("attack") as bar:
        demo = run_demo(output, device=device, threads=threads, progress=bar)
    click.echo(f"A Fashion-MNIST classifier on {demo.images} of its test images ({demo.provider})")
    click.echo()
    click.echo("                                              accuracy")
    click.echo(f"  clean                                          {demo.clean_accuracy:.3f}")
    click.echo(f"  {demo.budgets:<45}  {demo.adversarial_accuracy:.3f}")
    click.echo()
    verdict = "verified" if demo.verified else "DOES NOT VERIFY"
    click.echo(f"  attack     {demo.artifact}")
    rate = demo.images_per_second
    speed = f"{rate:.0f} images/s" if rate else "made by an earlier run"
    click.echo(f"  data set   {demo.dataset} ({verdict}; {speed})")
    click.echo(f"  picture    {demo.picture}")
    click.echo(f"  classifier {demo.model}")
    click.echo(f"  images     {demo.source}")
    click.echo()
    click.echo("Two commands to try next, with this model or your own:")
    click.echo()
    for words in _next(demo.model, demo.source):
        click.echo(f"  {shlex.join(words)}")
    if not demo.verified:
        raise FailedCheck(f"{demo.dataset} does not verify")


def _next(model: Path, source: Path) -> Iterator[list[str]]:
    yield ["jataug", "export", str(model), "-o", "weaker.onnx", "--flow", "0.1", "--pixel", "2/255"]
    yield ["jataug", "evaluate", str(model), str(source), "-o", "robustness", "--limit", "100"]
