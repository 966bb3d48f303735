"""What a run will take, measured on its first batch; nothing is written."""

import shutil
import time
from pathlib import Path

from ..checks import canonical
from ..dataset.encode import png
from ..dataset.formats import format_of
from .generate_report import Estimate
from .open_session import AttackSession
from .pipeline import attack, crew, read_ahead
from .shard_progress import Share

__all__ = ["estimate"]

_HASH = 80
"""Bytes of a record that are known only when its image is stored."""


def estimate(share: Share, session: AttackSession) -> Estimate:
    """Attack the first missing batch twice, the second time by the clock, and encode it.

    Raises:
        DataError: one of its samples cannot be used, and the job stops at errors.
    """
    plan = share.job.plan
    missing = sum(shard.stop - shard.start for shard in share.missing)
    size, attacking, encoding = 0.0, 0.0, 0.0
    if share.missing:
        shard = share.missing[0]
        with crew() as (pool, _):
            work = [(shard, plan.batches(shard)[0])]
            ((_, batch),) = read_ahead(share.job, work, pool)
            attack(share.job, session, batch)  # the runtime compiles with the first call
            began = time.perf_counter()
            made = attack(share.job, session, batch)
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
        shards=len(share.shards),
        missing_shards=len(share.missing),
        missing=missing,
        bytes=round(size),
        free=_free(share.job.root),
        batch_size=plan.batch_size,
        attack_seconds=attacking,
        encode_seconds=encoding,
    )


def _free(root: Path) -> int:
    """Return the bytes that are free where a folder is, or will be."""
    place = root.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free
