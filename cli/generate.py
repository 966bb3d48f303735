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
    tf32_option,
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
    show_default=True,
    help="folder stores one PNG file per image; npz, tar (WebDataset) and parquet store one file "
    "per shard."
)  # fmt: skip
@source_options
@click.option(
    "--batch-size", type=int,
    help="Images per call of the model. The output is byte-identical only for equal values. "
    "[default: 64, or the number of images if smaller]",
)  # fmt: skip
@click.option(
    "--shard-size", type=int, default=1024, show_default=True,
    help="Images per shard, rounded up to whole batches.",
)  # fmt: skip
@click.option(
    "--shard", metavar="I/N",
    help="Generate part I of N only, such as 2/4, so that N runs share a destination. [default: "
    "all]",
)  # fmt: skip
@click.option(
    "--save-flow", is_flag=True,
    help="Store the flow fields (float16), so that verify checks the budgets exactly.",
)  # fmt: skip
@click.option(
    "--save-float", is_flag=True, help="Store the images before quantisation too (float32)."
)
@click.option(
    "--source-hash", is_flag=True,
    help="Detect a changed source by the bytes of its files (slow), not by size and time.",
)  # fmt: skip
@on_error_option
@click.option("--limit", type=int, metavar="N", help="Use the first N images only. [default: all]")
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
    help="Run the workers on this machine, or on a Ray cluster. The output is the same.",
)  # fmt: skip
@click.option(
    "--workers", type=int, default=1, show_default=True,
    help="Worker processes. Each loads the model.",
)  # fmt: skip
@click.option(
    "--gpus-per-worker", type=float, metavar="F",
    help="GPUs per worker, with --engine ray only: 0.5 puts two workers on one GPU. [default: 1 "
    "where the cluster has GPUs]",
)  # fmt: skip
@click.option(
    "--threads", type=int, metavar="N",
    help="Runtime threads per worker. The output is byte-identical only for equal values. "
    "[default: the runtime's own choice]",
)  # fmt: skip
@tf32_option
@click.option(
    "--log-json", is_flag=True,
    help="Print progress (stderr) and result (stdout) as JSON, one object per line.",
)  # fmt: skip
@click.option(
    "--dry-run", is_flag=True,
    help="Check all input and estimate time and disk space, but write nothing.",
)  # fmt: skip
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
    Face data set. DESTINATION is a new or empty folder, or one to resume: the same command, run
    again, continues after the last complete shard.

    Ctrl-C stops after the current batch. A second Ctrl-C stops at once. The exit code is then 130.

    \b
    jataug generate attack.onnx photos/ out/ --resize 256 --crop 224
    jataug generate attack.onnx t10k-images-idx3-ubyte.gz out/ --dry-run
    jataug generate attack.onnx photos/ out/ --workers 2 --threads 4
    """
    from jataug.generator import generate

    if len(attacks) > 1:
        raise click.UsageError(
            f"generate takes one ATTACK, but {len(attacks)} were given; run the command once for "
            "each, with its own destination"
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
    """Print the JSON result of a run that was stopped before it began."""
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
        # The accuracy of a stopped run also counts images of incomplete shards; counts do not.
        click.echo(
            f"accuracy so far: {found}" if report.stopped else f"accuracy: {found} ({counts})"
        )
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
