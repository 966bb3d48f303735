"""jataug generate."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jataug.units import duration

from .command import Command
from .interrupt import INTERRUPTED, Interrupt
from .options import (
    PATH,
    backend_option,
    device_option,
    on_error_option,
    open_images,
    say_classes,
    source_options,
)
from .progress import Bar, JsonLines

if TYPE_CHECKING:
    from jataug.generator import Estimate, Report

__all__ = ["command"]


@click.command("generate", cls=Command)
@click.argument("attacks", type=PATH, nargs=-1, required=True, metavar="ATTACK")
@click.argument("source", type=PATH)
@click.argument("destination", type=PATH)
@click.option(
    "--format", type=click.Choice(["folder", "npz", "tar", "parquet"]), default="folder",
    show_default=True, help="PNG files, or a shard an archive, WebDataset tar or Parquet file."
)  # fmt: skip
@source_options
@click.option(
    "--batch-size", type=int, help="Images a call. [default: 64, or as many as there are]"
)
@click.option("--shard-size", type=int, default=1024, show_default=True, help="Images a shard.")
@click.option("--shard", metavar="I/N", help="Make the I-th of N parts.")
@click.option("--save-flow", is_flag=True, help="Store the flows, so that verify is exact.")
@click.option("--save-float", is_flag=True, help="Store the images before quantisation too.")
@click.option("--source-hash", is_flag=True, help="Tell a changed source by its bytes.")
@on_error_option
@click.option("--limit", type=int, metavar="N", help="Use the first N images.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option(
    "--workers", type=int, default=1, show_default=True, help="Processes, each with a session."
)
@click.option(
    "--gpus-per-worker", type=float, metavar="F", help="With Ray: 0.5 puts two workers on a GPU."
)
@click.option(
    "--threads", type=int, metavar="N",
    help="Of the runtime, in every worker. Part of what decides the last bits."
)  # fmt: skip
@click.option("--tf32", is_flag=True, help="On CUDA: faster, three digits less. Another data set.")
@click.option("--log-json", is_flag=True, help="Progress and result as JSON, a line each.")
@click.option("--dry-run", is_flag=True, help="Check and estimate everything, write nothing.")
@device_option
@backend_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    attacks: tuple[Path, ...],
    source: Path,
    destination: Path,
    log_json: bool,
    **given: Any,
) -> None:
    """Attack every image of SOURCE with the artifact ATTACK and store the results in DESTINATION.

    SOURCE is a folder of class folders, a folder of images (with --labels predicted), an .npz file
    with images and labels, an idx file of the MNIST family, tar shards, Parquet files or a Hugging
    Face data set. The same command, run again, resumes where it was stopped.

    Ctrl-C stops after the batch, a second one at once; then the exit code is 130.

    \b
    jataug generate attack.onnx photos/ out/ --resize 256 --crop 224 \\
        --labels predicted
    jataug generate attack.onnx t10k-images-idx3-ubyte.gz out/ --dry-run
    jataug generate attack.onnx photos/ out/ --workers 2 --threads 4
    """
    from jataug.generator import generate

    if len(attacks) > 1:
        raise click.UsageError(
            f"generate takes one ATTACK, and {len(attacks)} were given; run the command once for "
            "each, with a destination of its own, in a shell loop"
        )
    show = JsonLines() if log_json else Bar("generate")
    with show, _stopped_while_planned(ctx, log_json), Interrupt(show.say) as interrupt:
        images = open_images(source, show.say if log_json else None)
        say_classes(images, given, show.say if log_json else None)
        given |= {"progress": interrupt.begins(show), "stop": interrupt}
        report = generate(attacks[0], images, destination, **given)
    if log_json:
        done = {"event": "stopped" if report.stopped else "done", **asdict(report)}
        click.echo(json.dumps(done, default=str, sort_keys=True))
    else:
        _print(report)
    if report.stopped:
        ctx.exit(INTERRUPTED)


@contextmanager
def _stopped_while_planned(ctx: click.Context, log_json: bool) -> Iterator[None]:
    """Tell machines, too, of a run that was stopped before it began."""
    try:
        yield
    except KeyboardInterrupt:
        if not log_json:
            raise
        click.echo(json.dumps({"complete": False, "event": "stopped", "stopped": True}))
        ctx.exit(INTERRUPTED)


def _print(report: "Report") -> None:
    for skip in report.skipped:
        click.echo(f"skipped: {skip.reason}", err=True)
    for key in report.failed_keys:
        click.echo(f"failed: {key}: the model's logits are not finite; kept clean", err=True)
    if report.failed > len(report.failed_keys):
        more = report.failed - len(report.failed_keys)
        click.echo(f"failed: ... and {more} more, marked in the records", err=True)
    click.echo(report.message)
    for warning in report.warnings:
        click.echo(f"Warning: {report.destination}: {warning}", err=True)
    if report.estimate is not None:
        for name, value in _estimated(report.estimate).items():
            click.echo(f"  {name:<8} {value}")
        return
    if report.clean_accuracy is not None and report.adversarial_accuracy is not None:
        found = f"clean {report.clean_accuracy:.4f}, adversarial {report.adversarial_accuracy:.4f}"
        kept = report.images - report.failed
        counts = f"{kept} images attacked, {report.failed} failed, {len(report.skipped)} skipped"
        # Of a run that was stopped, images count that are in no whole shard.
        said = f"accuracy so far: {found}" if report.stopped else f"accuracy: {found} ({counts})"
        click.echo(said)
    if report.generated:
        click.echo(
            f"speed: {report.images_per_second:.1f} images/s; the attack waited "
            f"{report.waited:.1f} of {report.seconds:.1f} s"
        )


def _estimated(found: "Estimate") -> Mapping[str, str]:
    ready = found.shards - found.missing_shards
    per_batch = f"a batch of {found.batch_size}: {found.attack_seconds:.2g} s to attack"
    return {
        "plan": found.plan_hash,
        "shards": f"{found.shards}, {ready} of them there; {found.missing} images to make",
        "seeds": f"1: seed {found.seed}, epoch {found.epoch}",
        "disk": f"about {_size(found.bytes)}; {_size(found.free)} are free",
        "time": f"about {duration(found.seconds)} for one worker ({per_batch}, "
        f"{found.encode_seconds:.2g} s to encode)",
    }


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
