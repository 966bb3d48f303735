"""From a source of images to a data set of their adversarial versions: resumable, reproducible,
checked.
"""

import time
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Literal

from ..checks import check_integer
from ..data import ClassOrder, Source, open_source
from ..data.class_map import Classes
from ..dataset.counts import Progress
from ..dataset.plan import DEFAULT_BATCH, part_of
from ..errors import DataError
from .coordinator import make_data_set
from .engines import Workforce
from .estimate import estimate
from .generate_report import Report
from .open_session import AttackSession, Opening, check_session, opened
from .request import prepare_job
from .shard_progress import Share

__all__ = ["generate"]

StrPath = str | PathLike[str]


def generate(
    artifact: StrPath | None,
    source: StrPath | Source,
    destination: StrPath,
    *,
    format: Literal["folder", "npz", "tar", "parquet"] = "folder",
    seed: int = 0,
    batch_size: int | None = None,
    shard_size: int = 1024,
    labels: Literal["source", "predicted"] = "source",
    classes: Classes = None,
    class_order: ClassOrder | None = None,
    resize: int | None = None,
    crop: int | tuple[int, int] | None = None,
    save_flow: bool = False,
    save_float: bool = False,
    source_hash: bool = False,
    on_error: Literal["stop", "skip"] = "stop",
    limit: int | None = None,
    shard: str | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: int = 1,
    gpus_per_worker: float | None = None,
    threads: int | None = None,
    device: str = "auto",
    backend: str = "onnxruntime",
    tf32: bool = False,
    epoch: int = 0,
    dry_run: bool = False,
    progress: Callable[[Progress], object] | None = None,
    stop: Callable[[], bool] | None = None,
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
        batch_size: images per call of the model; part of what decides the last bits. Default: the
            session's, or else 64, or as many as there are.
        shard_size: images per shard, rounded up to whole batches.
        labels: "source", or "predicted" for the model's own prediction.
        classes: what class folders mean to the model: a text file with a name a line, JSON {name:
            class}, or a mapping.
        class_order: how class folders are numbered where `classes` is not given: "sorted" (1, 10,
            2, as torchvision, Keras and Hugging Face do) or "natural" (1, 2, 10). Has to be said
            where the two differ.
        resize: length of the shorter side, pixels; see jataug.data.Geometry.
        crop: side of the centre crop, or (height, width), pixels.
        save_flow: store the flow fields, float16, so that verify can check budgets exactly.
        save_float: store the images before they were quantised, float32.
        source_hash: tell a changed source by its bytes instead of sizes and modification times.
        on_error: "stop" at an image that cannot be used, or "skip" it; the other images do not
            change.
        limit: use the first `limit` samples.
        shard: "i/n": make the i-th of n parts of the shards; workers may share a destination.
        engine: "local", or "ray" for Ray Data; the bytes are the same.
        workers: how many work at once, each in a process of its own with its own session.
        gpus_per_worker: with Ray: the part of a GPU, or the number of GPUs, that a worker gets.
        threads: of the runtime, in every worker; part of what decides the last bits. By default
            its own choice, which depends on the machine.
        device: "auto", "cpu", "cuda" or "cuda:1".
        backend: the runtime, "onnxruntime" or "openvino"; of `session`, where that is given.
        tf32: let CUDA round products to TF32; another data set. Of `session`, likewise.
        epoch: another epoch draws other starts and targets.
        dry_run: check everything, estimate time and space from one batch, and write nothing.
        progress: called after every batch.
        stop: asked after every batch; true ends the run, and the same call goes on later.
        session: an open session to use instead of opening `artifact`; with one worker only.

    Raises:
        DataError: the source, the destination or an option cannot be used; the message says which
            and why.
        ArtifactError: the artifact cannot be used.
        RuntimeUnavailable: the device cannot be used.
    """
    began = time.monotonic()
    workforce, part = Workforce(engine, workers, gpus_per_worker), part_of(shard)
    if batch_size is not None:
        check_integer("batch_size", batch_size, 1)
    if session is not None and (engine, workers) != ("local", 1):
        raise DataError(
            "session: cannot be used with several workers or Ray, where each worker opens its "
            "own; give the artifact's path"
        )
    if artifact is not None and session is not None:
        check_session(artifact, session)
    root = Path(destination)
    if engine == "ray":  # its workers may have another current directory
        source = source if isinstance(source, Source) else Path(source).absolute()
        root = root.absolute()
    held = source if isinstance(source, Source) else open_source(source)
    size = batch_size or _batch_size(len(held), limit, session)
    opening = None
    if artifact is not None:
        opening = Opening(Path(artifact).absolute(), size, device, threads, backend, tf32)
    asked = _Asked(stop)
    with opened(opening, session, batch_size=size) as attacker:
        job = prepare_job(
            attacker,
            artifact,
            held,
            root,
            format=format,
            seed=seed,
            epoch=epoch,
            batch_size=size,
            shard_size=shard_size,
            labels=labels,
            classes=classes,
            class_order=class_order,
            resize=resize,
            crop=crop,
            save_flow=save_flow,
            save_float=save_float,
            source_hash=source_hash,
            on_error=on_error,
            limit=limit,
            threads=threads,
        )
        share = Share(job, part)
        found = estimate(share, attacker) if dry_run else None
        if found is None:
            make_data_set(share, opening, attacker, workforce, progress, asked)
        return share.report(time.monotonic() - began, stopped=asked.answer, estimate=found)


def _batch_size(count: int, limit: int | None, session: AttackSession | None) -> int:
    """Return the default: the given session's own; else at most DEFAULT_BATCH, and no more than
    there are images, as every batch is padded to its size.
    """
    if isinstance(own := getattr(session, "batch_size", None), int):
        return own
    wanted = min(count, limit) if isinstance(limit, int) and limit > 0 else count
    return max(1, min(DEFAULT_BATCH, wanted))


class _Asked:
    """Remembers whether a run was asked to stop.

    Args:
        stop: whether to stop; None for never.
    """

    def __init__(self, stop: Callable[[], bool] | None) -> None:
        self._stop, self.answer = stop, False

    def __call__(self) -> bool:
        self.answer = self.answer or bool(self._stop and self._stop())
        return self.answer
