"""index.json: what a data set is, written when every shard of it is whole."""

from collections.abc import Mapping
from typing import Any

from ..data.stored import KIND
from ..errors import DataError
from .destination import FORMAT_VERSION, INDEX, finished, records
from .job import Job
from .plan import canonical
from .report import Tally
from .store import Store

__all__ = ["KIND", "write_index"]


def write_index(store: Store, job: Job, known: Mapping[int, dict[str, Any]]) -> bool:
    """Write index.json if every shard is whole; return whether it was written.

    It holds no time and no rate: the same plan and build give the same bytes.

    Args:
        store: of the destination.
        job: the checked request.
        known: the markers of shards that this run has made or checked, by number.

    Raises:
        DataError: not one image of the source could be used.
    """
    markers, tally = [], Tally()
    for shard in job.plan.shards:
        marker = known.get(shard.number) or finished(job.root, shard)
        if marker is None:
            return False
        markers.append(marker)
        tally += Tally.of(records(job.root, shard))
    skipped = [skip for marker in markers for skip in marker["skipped"]]
    if not tally.images:
        raise DataError(
            f"{job.root}: expected at least one image that can be used, "
            f"got none of {len(skipped)}; the first: {skipped[0]['reason']}"
        )
    index = {**_head(job), **_counts(tally, len(skipped)), "skipped": skipped}
    index["environments"] = _unique([marker["environment"] for marker in markers])
    named = ("name", "start", "stop", "count", "files")
    index["shards"] = [{key: marker[key] for key in named} for marker in markers]
    store.write(INDEX, f"{canonical(index)}\n".encode())
    return True


def _head(job: Job) -> dict[str, Any]:
    plan = job.plan.to_dict()
    return {
        "format_version": FORMAT_VERSION,
        "kind": KIND,
        "format": plan["format"],
        "plan_hash": job.plan.hash,
        "plan": plan,
        "source_path": job.source_path,
        "class_names": {str(k): name for k, name in (job.names or {}).items()} or None,
    }


def _counts(tally: Tally, skipped: int) -> dict[str, Any]:
    return {
        "counts": {
            "images": tally.images,
            "skipped": skipped,
            "failed": tally.failed,
            "clean_correct": tally.clean_correct,
            "adversarial_correct": tally.adversarial_correct,
        },
        "clean_accuracy": tally.clean_accuracy,
        "adversarial_accuracy": tally.adversarial_accuracy,
    }


def _unique(values: list[Any]) -> list[Any]:
    return [value for k, value in enumerate(values) if value not in values[:k]]
