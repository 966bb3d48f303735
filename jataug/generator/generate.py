"""From a source of images to a data set of their adversarial versions: resumable, reproducible,
checked.
"""

import time
from collections.abc import Callable
from os import PathLike
from typing import Literal

from ..data import Source
from ..data.labels import Classes
from ..errors import DataError
from .job import prepare_job
from .plan import share_of
from .report import Progress, Report
from .run import Run
from .session import AttackSession, opened

__all__ = ["generate"]

StrPath = str | PathLike[str]


def generate(
    artifact: StrPath | None,
    source: StrPath | Source,
    destination: StrPath,
    *,
    format: Literal["folder", "npz", "tar", "parquet"] = "folder",
    seed: int = 0,
    batch_size: int = 64,
    shard_size: int = 1024,
    labels: Literal["source", "predicted"] = "source",
    classes: Classes = None,
    resize: int | None = None,
    crop: int | tuple[int, int] | None = None,
    save_flow: bool = False,
    save_float: bool = False,
    source_hash: bool = False,
    on_error: Literal["stop", "skip"] = "stop",
    limit: int | None = None,
    shard: str | None = None,
    engine: Literal["local"] = "local",
    device: str = "auto",
    epoch: int = 0,
    dry_run: bool = False,
    progress: Callable[[Progress], object] | None = None,
    session: AttackSession | None = None,
) -> Report:
    """Attack every image of a source and store the results; run again, it goes on where it was
    stopped.

    Args:
        artifact: the attack, an .onnx file that jataug.export wrote; may be None where `session` is
            given.
        source: what jataug.data.open_source takes, or a source.
        destination: a new or empty folder, or one where the same plan was begun.
        format: "folder" stores a PNG an image, "npz" an archive a shard, "tar" WebDataset shards,
            "parquet" shards with the Hugging Face Image feature.
        seed: of the random starts and targets.
        batch_size: images per call of the model; part of what decides the last bits.
        shard_size: images per shard, rounded up to whole batches.
        labels: "source", or "predicted" for the model's own prediction.
        classes: what class folders mean to the model: a text file with a name a line, JSON {name:
            class}, or a mapping.
        resize: length of the shorter side, pixels; see jataug.data.Geometry.
        crop: side of the centre crop, or (height, width), pixels.
        save_flow: store the flow fields, float16, so that verify can check budgets exactly.
        save_float: store the images before they were quantised, float32.
        source_hash: tell a changed source by its bytes instead of sizes and modification times.
        on_error: "stop" at an image that cannot be used, or "skip" it; the other images do not
            change.
        limit: use the first `limit` samples.
        shard: "i/n": make the i-th of n parts of the shards; workers may share a destination.
        engine: "local".
        device: "auto", "cpu", "cuda" or "cuda:1".
        epoch: another epoch draws other starts and targets.
        dry_run: check everything that can be checked without attacking, and write nothing.
        progress: called after every batch.
        session: an open session to use instead of opening `artifact`.

    Raises:
        DataError: the source, the destination or an option cannot be used; the message says which
            and why.
        ArtifactError: the artifact cannot be used.
        RuntimeUnavailable: the device cannot be used.
    """
    if engine != "local":
        raise DataError(f"engine: expected local, got {engine!r}, which is not in this version")
    began = time.monotonic()
    with opened(artifact, session, batch_size=batch_size, device=device) as attacker:
        job = prepare_job(
            attacker,
            artifact,
            source,
            destination,
            labels=labels,
            classes=classes,
            resize=resize,
            crop=crop,
            limit=limit,
            on_error=on_error,
            source_hash=source_hash,
            seed=seed,
            epoch=epoch,
            batch_size=batch_size,
            shard_size=shard_size,
            format=format,
            save_flow=save_flow,
            save_float=save_float,
        )
        run = Run(job, attacker, share_of(job.plan.shards, shard), progress)
        if not dry_run:
            run.make()
        return run.report(time.monotonic() - began, dry_run)
