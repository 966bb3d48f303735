"""jataug generate."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from .command import Command
from .options import PATH, device_option, source_options
from .progress import Bar, JsonLines

__all__ = ["command"]


@click.command("generate", cls=Command)
@click.argument("attack", type=PATH)
@click.argument("source", type=PATH)
@click.argument("destination", type=PATH)
@click.option(
    "--format", type=click.Choice(["folder", "npz", "tar", "parquet"]), default="folder",
    show_default=True, help="A PNG an image, or an archive a shard; tar is WebDataset's."
)  # fmt: skip
@source_options
@click.option("--batch-size", type=int, default=64, show_default=True)
@click.option("--shard-size", type=int, default=1024, show_default=True, help="Images a shard.")
@click.option("--shard", metavar="I/N", help="Make the I-th of N parts.")
@click.option("--save-flow", is_flag=True, help="Store the flows, so that verify is exact.")
@click.option("--save-float", is_flag=True, help="Store the images before quantisation too.")
@click.option("--source-hash", is_flag=True, help="Tell a changed source by its bytes.")
@click.option(
    "--on-error", type=click.Choice(["stop", "skip"]), default="stop", show_default=True,
    help="At an image that cannot be used."
)  # fmt: skip
@click.option("--limit", type=int, metavar="N", help="Use the first N images.")
@click.option("--engine", type=click.Choice(["local"]), default="local", show_default=True)
@click.option("--log-json", is_flag=True, help="Progress and result as JSON, a line each.")
@click.option("--dry-run", is_flag=True, help="Check everything, write nothing.")
@device_option
def command(attack: Path, source: Path, destination: Path, **given: Any) -> None:
    """Attack every image of SOURCE with the artifact ATTACK and store the results in DESTINATION.

    SOURCE is a folder of class folders, a folder of images (with --labels predicted), an .npz file
    with images and labels, or an idx file of the MNIST family. Run again, it goes on where it was
    stopped.

    \b
    jataug generate attack.onnx photos/ out/ --resize 256 --crop 224 --labels predicted
    jataug generate attack.onnx t10k-images-idx3-ubyte.gz out/ --format npz
    """
    from jataug.generator import generate

    if given.pop("log_json"):
        report = generate(attack, source, destination, progress=JsonLines(), **given)
        click.echo(json.dumps({"event": "done", **asdict(report)}, default=str, sort_keys=True))
        return
    with Bar("generate") as bar:
        report = generate(attack, source, destination, progress=bar, **given)
    for skip in report.skipped:
        click.echo(f"skipped: {skip.reason}", err=True)
    click.echo(report.message)
    if report.clean_accuracy is not None and report.adversarial_accuracy is not None:
        kept = report.images - report.failed
        click.echo(
            f"accuracy: clean {report.clean_accuracy:.4f}, adversarial "
            f"{report.adversarial_accuracy:.4f} ({kept} images attacked, {report.failed} failed, "
            f"{len(report.skipped)} skipped)"
        )
    if report.generated:
        click.echo(f"speed: {report.images_per_second:.1f} images/s")
