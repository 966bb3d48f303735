"""Writes one shard: images in the chosen format, then the records that describe them."""

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any

from ..atomic import Store, name_write_errors
from ..checks import canonical
from ..errors import DataError
from .card_samples import CardSample, card_sample_name, write_card_samples
from .finished_batch import Finished
from .formats import format_of
from .formats.target import Target, raw
from .plan import Plan, Shard
from .schema import marker_name, records_name

__all__ = ["Finished", "ShardWriter"]


class ShardWriter:
    """Writes the batches of one shard. Memory holds one batch, whatever the size of the shard.

    Args:
        store: the writer of files in the destination.
        plan: the plan of the data set.
        shard: the shard to write.
        name_of: function from a sample's index to the path of its PNG (format "folder").
        pool: thread pool that encodes images.
        names: class names by class, or None if they are unknown.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        shard: Shard,
        name_of: Callable[[int], str],
        pool: Executor,
        names: Mapping[int, str] | None = None,
    ) -> None:
        self._store, self._plan, self._shard = store, plan, shard
        self._writer = format_of(plan.format).Writer(
            Target(store, plan, shard, name_of, names, pool)
        )
        self._records: list[dict[str, Any]] = []
        self._skipped: list[dict[str, Any]] = []
        self._card_samples: list[CardSample] = []
        self._samples = 0

    def add(self, batch: Finished) -> None:
        """Write the next batch.

        Raises:
            DataError: a file cannot be written.
        """
        places = self._writer.add(batch)
        hashes = [self._hashes(batch, row) for row in range(len(batch.records))]
        self._records += (
            {**record, **place, **hashed}
            for record, place, hashed in zip(batch.records, places, hashes, strict=True)
        )
        self._skipped += batch.skipped
        self._card_samples += batch.card_samples
        self._samples += len(batch.records) + len(batch.skipped)

    def finish(self, environment: dict[str, Any]) -> dict[str, Any]:
        """Write the rest, the records last, and return the content of the marker.

        Raises:
            DataError: a file cannot be written, or a batch is missing.
        """
        # The writer continues after a failed batch, whose shard must not count as complete.
        if self._samples != (expected := self._shard.stop - self._shard.start):
            raise DataError(
                f"{self._shard.name}: expected {expected} samples, got {self._samples}; "
                "run the same command again"
            )
        files = {**self._writer.finish(self._records), **self._preview()}
        lines = "".join(f"{canonical(record)}\n" for record in self._records)
        name = records_name(self._shard)
        files[name] = self._store.write(name, lines.encode())
        marker = {
            "name": self._shard.name,
            "start": self._shard.start,
            "stop": self._shard.stop,
            "count": len(self._records),
            "files": files,
            "skipped": self._skipped,
            "environment": {**environment, **format_of(self._plan.format).prepare(self._plan)},
        }
        self._store.write(marker_name(self._shard), f"{canonical(marker)}\n".encode())
        return marker

    def _preview(self) -> dict[str, str]:
        if not self._card_samples:
            return {}
        name, draft = card_sample_name(self._shard), self._store.temporary()
        with name_write_errors(self._store.root / name):
            write_card_samples(draft, self._card_samples)
        return {name: self._store.publish(draft, name)}

    def _hashes(self, batch: Finished, row: int) -> dict[str, str]:
        """Return the sha256 of the flow and of the float image, if they are saved."""
        arrays = {}
        if self._plan.save_flow:
            arrays["flow_sha256"] = batch.flow[row]
        if self._plan.save_float:
            arrays["float_sha256"] = batch.exact[row]
        return {name: hashlib.sha256(raw(array)).hexdigest() for name, array in arrays.items()}
