"""The pipeline of a worker: reads the next batches and writes the last ones during an attack."""

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
from ..dataset.card_samples import select_card_samples
from ..dataset.plan import Shard
from ..dataset.shard_writer import Finished
from ..errors import DataError
from ..result import predictions
from .open_session import AttackSession
from .request import Request

__all__ = ["Loaded", "attack", "draw", "drawn_ahead", "in_turn", "read_ahead", "thread_pools"]

_AHEAD = 2
"""Batches that are read ahead during an attack."""

_WAITING = 2
"""Batches that may wait for the disk. More would only use memory."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A batch of images before the attack.

    Attributes:
        span: indices of the samples in the source.
        images: (batch, height, width, channel), uint8; black for samples that cannot be used.
        reasons: why a sample cannot be used, by position in the batch.
    """

    span: range
    images: NDArray[np.uint8]
    reasons: dict[int, str]


@contextmanager
def thread_pools(workers: int | None = None) -> Iterator[tuple[Executor, Executor]]:
    """Yield a thread pool for reading and encoding, and one with a single thread for writing.

    At the end, also after an exception, it waits until the batches handed to the writer are on
    disk.
    """
    pool = _start_pool(workers or min(16, cpu_count() or 1), "jataug-image")
    writer = _start_pool(1, "jataug-writer")
    try:
        yield pool, writer
    finally:
        writer.shutdown()
        pool.shutdown(cancel_futures=True)


def _start_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """Return a pool whose threads are all running.

    Starting them later could fail, because the model may use the memory that their stacks need.
    """
    pool, all_running = ThreadPoolExecutor(threads, name), Barrier(threads)
    list(pool.map(lambda _: all_running.wait(), range(threads)))
    return pool


def read_ahead(
    request: Request, work: Iterable[tuple[Shard, range]], pool: Executor
) -> Iterator[tuple[Shard, Loaded]]:
    """Yield the batches in order, while the next ones are being read.

    Raises:
        DataError: a sample cannot be used, and `on_error` is "stop".
    """
    # One thread reads a compressed stream in order: every step back would start it over.
    stream = None if request.source.random_access else ThreadPoolExecutor(1, "jataug-stream")
    waiting: deque[tuple[Shard, Callable[[], Loaded]]] = deque()
    try:
        for shard, span in work:
            waiting.append((shard, _start(request, span, pool, stream)))
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
    """Yield each batch with its random starts, while those of the next batch are drawn."""
    last: tuple[Shard, Loaded, Future[Any]] | None = None
    for shard, batch in batches:
        drawn = pool.submit(starts, batch)
        if last is not None:
            yield last
        last = shard, batch, drawn
    if last is not None:
        yield last


def draw(request: Request, session: AttackSession, batch: Loaded) -> Any:
    """Return the random starts of a batch, or None if the session draws them itself."""
    ahead = getattr(session, "draw", None)
    if ahead is None:
        return None
    indices = np.asarray(batch.span, np.int64)
    return ahead(batch.images, indices, seed=request.plan.seed, epoch=request.plan.epoch)


def attack(request: Request, session: AttackSession, batch: Loaded, start: Any = None) -> Finished:
    """Attack a batch from the starts that `draw` returned.

    Skipped samples keep their slots during the attack, so that the others do not change, and are
    removed from the result.
    """
    skipped = [
        {"index": batch.span[slot], "key": request.source.key(batch.span[slot]), "reason": reason}
        for slot, reason in batch.reasons.items()
    ]
    clean = np.asarray(session.predict(batch.images))
    indices = np.asarray(batch.span, np.int64)
    given = clean.argmax(-1).astype(np.int64) if request.labels is None else request.labels[indices]
    plan = request.plan
    begin = {} if start is None else {"start": start}
    result = session.attack(batch.images, given, indices, seed=plan.seed, epoch=plan.epoch, **begin)
    kept = [slot for slot in range(len(batch.span)) if slot not in batch.reasons]
    before, after = predictions(clean), predictions(np.asarray(result.logits))
    records = [
        {
            "index": batch.span[slot],
            "key": request.source.key(batch.span[slot]),
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
        card_samples=select_card_samples(plan, batch.span, batch.images, clean, result, kept),
    )


def in_turn(writer: Executor, pending: deque[Future[Any]], task: Callable[[], Any]) -> None:
    """Submit a task to the writer; wait if too many are pending, and raise their exceptions."""
    pending.append(writer.submit(task))
    while len(pending) > _WAITING:
        pending.popleft().result()


def _start(
    request: Request, span: range, pool: Executor, stream: Executor | None
) -> Callable[[], Loaded]:
    """Start to read a batch and return a function that waits for it."""
    if stream is None:
        images = [pool.submit(_read, request, index) for index in span]
        return lambda: _loaded(request, span, [image.result() for image in images])
    batch = stream.submit(lambda: [_read(request, index) for index in span])
    return lambda: _loaded(request, span, batch.result())


def _read(request: Request, index: int) -> NDArray[np.uint8] | DataError:
    where = request.source.where(index)
    try:
        if request.snapshot is not None:
            request.snapshot.check(index)
        return prepare(
            request.source.read(index), request.geometry, request.plan.image_shape, where
        )
    except DataError as error:
        return error


def _loaded(request: Request, span: range, images: list[NDArray[np.uint8] | DataError]) -> Loaded:
    channel, height, width = request.plan.image_shape
    batch = np.zeros((len(span), height, width, channel), np.uint8)
    reasons = {}
    for slot, image in enumerate(images):
        if not isinstance(image, DataError):
            batch[slot] = image
        elif request.on_error == "stop":
            raise DataError(f"{image} {HINT}") from None
        else:
            reasons[slot] = str(image)
    return Loaded(span, batch, reasons)


def _class(prediction: Any) -> int | None:
    return None if prediction < 0 else int(prediction)


def _number(value: Any) -> float | None:
    # The shortest decimal that reads back as the same float32.
    return float(str(np.float32(value))) if np.isfinite(value) else None
