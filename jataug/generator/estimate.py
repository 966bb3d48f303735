"""The estimate of a dry run: time and disk space, measured on the first batch."""

import shutil
import time
from pathlib import Path

from ..checks import canonical
from ..dataset.encode import png
from ..dataset.formats import format_of
from .generate_report import Estimate
from .open_session import AttackSession
from .pipeline import attack, read_ahead, thread_pools
from .shard_progress import ShardProgress

__all__ = ["estimate"]

_HASH = 80
"""Bytes of a record that are unknown until its image is stored: the sha256 and its key."""


def estimate(shard_progress: ShardProgress, session: AttackSession) -> Estimate:
    """Return an estimate from one batch, which is attacked twice and encoded once.

    Only the second attack is timed, because the runtime compiles the model during the first one.

    Raises:
        DataError: a sample of the batch cannot be used, and `on_error` is "stop".
    """
    plan = shard_progress.request.plan
    missing = sum(shard.stop - shard.start for shard in shard_progress.missing)
    size, attacking, encoding = 0.0, 0.0, 0.0
    if shard_progress.missing:
        shard = shard_progress.missing[0]
        with thread_pools() as (pool, _):
            work = [(shard, plan.batches(shard)[0])]
            ((_, batch),) = read_ahead(shard_progress.request, work, pool)
            attack(
                shard_progress.request, session, batch
            )  # the runtime compiles with the first call
            began = time.perf_counter()
            made = attack(shard_progress.request, session, batch)
            attacking = time.perf_counter() - began
            began = time.perf_counter()
            if format_of(plan.format).PICTURES:
                size = sum(map(len, pool.map(png, made.images)))
            else:
                size = made.images.nbytes
            encoding = time.perf_counter() - began
        size += made.flow.nbytes * plan.save_flow + made.exact.nbytes * plan.save_float
        size += sum(len(canonical(record)) + _HASH for record in made.records)
        size *= missing / len(batch.span)
    return Estimate(
        plan_hash=plan.hash,
        seed=plan.seed,
        epoch=plan.epoch,
        shards=len(shard_progress.shards),
        missing_shards=len(shard_progress.missing),
        missing=missing,
        bytes=round(size),
        free=_free(shard_progress.request.root),
        batch_size=plan.batch_size,
        attack_seconds=attacking,
        encode_seconds=encoding,
    )


def _free(root: Path) -> int:
    """Return the free bytes of the disk that a folder is on, or will be on."""
    place = root.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free
