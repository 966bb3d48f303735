"""generate: attacks every image of a source and stores the results; reproducible and resumable."""

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
from .open_session import AttackSession, Opening, check_session, open_session
from .request import prepare_request
from .shard_progress import ShardProgress

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
    """Attack every image of a source and store the results. The same call resumes a stopped run.

    Args:
        artifact: the attack, an .onnx file that jataug.export wrote; may be None if `session` is
            given.
        source: a path as for jataug.data.open_source, or a source.
        destination: a new or empty folder, or one that was started with the same options.
        format: "folder" stores one PNG file per image, "npz" one archive per shard, "tar"
            WebDataset shards, "parquet" shards with the Hugging Face Image feature.
        seed: seed of the random starts and targets.
        batch_size: images per call of the model. The output is byte-identical only for equal
            values. Defaults to that of `session`, else to 64, or to the number of images if that
            is smaller.
        shard_size: images per shard, rounded up to whole batches.
        labels: "source" takes labels from the source, "predicted" the model's own predictions.
        classes: the model's class of each class folder: a text file with one name per line, a
            JSON file {name: class}, or a mapping.
        class_order: how class folders are numbered if `classes` is not given: "sorted" (1, 10, 2,
            as torchvision, Keras and Hugging Face do) or "natural" (1, 2, 10). Required if the two
            differ.
        resize: length of the shorter side, pixels; see jataug.data.Geometry.
        crop: side of the centre crop, or (height, width), pixels.
        save_flow: store the flow fields (float16), so that verify checks the budgets exactly.
        save_float: also store the images before quantisation (float32).
        source_hash: detect a changed source by the bytes of its files instead of by their sizes
            and modification times.
        on_error: "stop" raises an error at an unusable image; "skip" leaves it out, and the other
            images do not change.
        limit: use the first `limit` samples.
        shard: "i/n" makes part i of n of the shards, so that several runs share a destination.
        engine: "local", or "ray" for Ray Data. The output is the same.
        workers: number of worker processes. Each opens its own session.
        gpus_per_worker: GPUs per worker, with Ray only; a fraction shares a GPU.
        threads: runtime threads per worker. The output is byte-identical only for equal values.
            Defaults to the runtime's own choice, which depends on the machine.
        device: "auto", "cpu", "cuda" or "cuda:<i>".
        backend: the runtime, "onnxruntime" or "openvino". Changes the output. Ignored if `session`
            is given.
        tf32: allow TF32 on CUDA. Changes the output. Ignored if `session` is given.
        epoch: number of the pass; each epoch draws other starts and targets.
        dry_run: check all input and estimate time and space from one batch, but write nothing.
        progress: called with a Progress after every batch.
        stop: called after every batch; a true result stops the run. The same call resumes it.
        session: an open session to use instead of opening `artifact`, with one worker only.

    Returns:
        What was made, with counts, accuracies and warnings.

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
            "session: cannot be used with several workers or with Ray, because each worker opens "
            "its own; give the artifact's path instead"
        )
    if artifact is not None and session is not None:
        check_session(artifact, session)
    root = Path(destination)
    if engine == "ray":  # Ray workers may have another current directory
        source = source if isinstance(source, Source) else Path(source).absolute()
        root = root.absolute()
    held = source if isinstance(source, Source) else open_source(source)
    size = batch_size or _batch_size(len(held), limit, session)
    opening = None
    if artifact is not None:
        opening = Opening(Path(artifact).absolute(), size, device, threads, backend, tf32)
    stop_request = _StopRequest(stop)
    with open_session(opening, session, batch_size=size) as attacker:
        request = prepare_request(
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
        shard_progress = ShardProgress(request, part)
        found = estimate(shard_progress, attacker) if dry_run else None
        if found is None:
            make_data_set(shard_progress, opening, attacker, workforce, progress, stop_request)
        return shard_progress.report(
            time.monotonic() - began, stopped=stop_request.answer, estimate=found
        )


def _batch_size(count: int, limit: int | None, session: AttackSession | None) -> int:
    """Return the default batch size: that of the session, else at most DEFAULT_BATCH.

    It is at most the number of images, because every batch is padded to its size.
    """
    if isinstance(own := getattr(session, "batch_size", None), int):
        return own
    wanted = min(count, limit) if isinstance(limit, int) and limit > 0 else count
    return max(1, min(DEFAULT_BATCH, wanted))


class _StopRequest:
    """Calls `stop` and remembers a true answer.

    Args:
        stop: returns whether to stop; None for never.
    """

    def __init__(self, stop: Callable[[], bool] | None) -> None:
        self._stop, self.answer = stop, False

    def __call__(self) -> bool:
        self.answer = self.answer or bool(self._stop and self._stop())
        return self.answer
