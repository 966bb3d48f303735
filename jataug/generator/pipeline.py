"""Read the next batch and write the last one while the attack runs on this one."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from os import cpu_count
from threading import Barrier
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import prepare
from ..data.skip import HINT
from ..dataset.card_samples import sketched
from ..dataset.plan import Shard
from ..dataset.shard_writer import Finished
from ..errors import DataError
from ..result import predictions
from .open_session import AttackSession
from .request import Job

__all__ = ["Loaded", "attack", "crew", "draw", "drawn_ahead", "in_turn", "read_ahead"]

_AHEAD = 2
"""Batches that are read while the attack runs on one."""

_WAITING = 2
"""Batches that may wait for the disk; more would only fill the memory."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A batch before the attack.

    Attributes:
        span: the samples.
        images: (batch, height, width, channel), uint8; black where a sample could not be used.
        reasons: why, by position in the batch.
    """

    span: range
    images: NDArray[np.uint8]
    reasons: dict[int, str]


@contextmanager
def crew(workers: int | None = None) -> Iterator[tuple[Executor, Executor]]:
    """Yield a pool for reading and encoding, and a pool of one for writing in order.

    The block is left when the batches that were handed to the writer are on the disk, also by an
    exception.
    """
    pool = _started(workers or min(16, cpu_count() or 1), "jataug-image")
    writer = _started(1, "jataug-writer")
    try:
        yield pool, writer
    finally:
        writer.shutdown()
        pool.shutdown(cancel_futures=True)


def _started(threads: int, name: str) -> ThreadPoolExecutor:
    """Return a pool whose threads all run: once the model has taken its memory, there may be none
    left for the stack of another.
    """
    pool, all_here = ThreadPoolExecutor(threads, name), Barrier(threads)
    list(pool.map(lambda _: all_here.wait(), range(threads)))
    return pool


def read_ahead(
    job: Job, work: Iterable[tuple[Shard, range]], pool: Executor
) -> Iterator[tuple[Shard, Loaded]]:
    """Yield the batches in order, each while the next ones are being read.

    Raises:
        DataError: a sample cannot be used, and the job stops at errors.
    """
    # A compressed stream is read in order, or it starts over at every step back.
    stream = None if job.source.random_access else ThreadPoolExecutor(1, "jataug-stream")
    waiting: deque[tuple[Shard, Callable[[], Loaded]]] = deque()
    try:
        for shard, span in work:
            waiting.append((shard, _start(job, span, pool, stream)))
            if len(waiting) > _AHEAD:
                first, load = waiting.popleft()
                yield first, load()
        for first, load in waiting:
            yield first, load()
    finally:
        if stream is not None:
            stream.shutdown(cancel_futures=True)


def drawn_ahead(
    batches: Iterable[tuple[Shard, Loaded]],
    starts: Callable[[Loaded], Any],
    pool: Executor,
) -> Iterator[tuple[Shard, Loaded, Future[Any]]]:
    """Yield the batches, each with its starts, while those of the next are drawn."""
    last: tuple[Shard, Loaded, Future[Any]] | None = None
    for shard, batch in batches:
        drawn = pool.submit(starts, batch)
        if last is not None:
            yield last
        last = shard, batch, drawn
    if last is not None:
        yield last


def draw(job: Job, session: AttackSession, batch: Loaded) -> Any:
    """Return where the attack on a batch begins, or None where the session draws by itself."""
    ahead = getattr(session, "draw", None)
    if ahead is None:
        return None
    indices = np.asarray(batch.span, np.int64)
    return ahead(batch.images, indices, seed=job.plan.seed, epoch=job.plan.epoch)


def attack(job: Job, session: AttackSession, batch: Loaded, start: Any = None) -> Finished:
    """Run the attack on a batch from where `draw` begins; skipped samples keep their slots in it
    and leave afterwards.
    """
    skipped = [
        {"index": batch.span[slot], "key": job.source.key(batch.span[slot]), "reason": reason}
        for slot, reason in batch.reasons.items()
    ]
    clean = np.asarray(session.predict(batch.images))
    indices = np.asarray(batch.span, np.int64)
    given = clean.argmax(-1).astype(np.int64) if job.labels is None else job.labels[indices]
    plan = job.plan
    begin = {} if start is None else {"start": start}
    result = session.attack(batch.images, given, indices, seed=plan.seed, epoch=plan.epoch, **begin)
    kept = [slot for slot in range(len(batch.span)) if slot not in batch.reasons]
    before, after = predictions(clean), predictions(np.asarray(result.logits))
    records = [
        {
            "index": batch.span[slot],
            "key": job.source.key(batch.span[slot]),
            "label": int(result.label[slot]),
            "target": int(result.target[slot]),
            "clean_prediction": _class(before[slot]),
            "adversarial_prediction": _class(after[slot]),
            "loss": _number(result.loss[slot]),
            "success": bool(result.success[slot]),
            "failed": bool(result.failed[slot]),
        }
        for slot in kept
    ]
    return Finished(
        records,
        images=np.asarray(result.adversarial)[kept],
        flow=np.asarray(result.flow)[kept],
        exact=np.asarray(result.exact)[kept],
        skipped=skipped,
        sketches=sketched(plan, batch.span, batch.images, clean, result, kept),
    )


def in_turn(writer: Executor, pending: deque[Future[Any]], task: Callable[[], Any]) -> None:
    """Hand a task to the writer; wait where too many are waiting, and raise what one raised."""
    pending.append(writer.submit(task))
    while len(pending) > _WAITING:
        pending.popleft().result()


def _start(job: Job, span: range, pool: Executor, stream: Executor | None) -> Callable[[], Loaded]:
    """Begin to read a batch; return a function that waits for it."""
    if stream is None:
        images = [pool.submit(_read, job, index) for index in span]
        return lambda: _loaded(job, span, [image.result() for image in images])
    batch = stream.submit(lambda: [_read(job, index) for index in span])
    return lambda: _loaded(job, span, batch.result())


def _read(job: Job, index: int) -> NDArray[np.uint8] | DataError:
    where = job.source.where(index)
    try:
        if job.marks is not None:
            job.marks.check(index)
        return prepare(job.source.read(index), job.geometry, job.plan.image_shape, where)
    except DataError as error:
        return error


def _loaded(job: Job, span: range, images: list[NDArray[np.uint8] | DataError]) -> Loaded:
    channel, height, width = job.plan.image_shape
    batch = np.zeros((len(span), height, width, channel), np.uint8)
    reasons = {}
    for slot, image in enumerate(images):
        if not isinstance(image, DataError):
            batch[slot] = image
        elif job.on_error == "stop":
            raise DataError(f"{image} {HINT}") from None
        else:
            reasons[slot] = str(image)
    return Loaded(span, batch, reasons)


def _class(prediction: Any) -> int | None:
    return None if prediction < 0 else int(prediction)


def _number(value: Any) -> float | None:
    # The shortest decimal that reads back as the same float32.
    return float(str(np.float32(value))) if np.isfinite(value) else None
