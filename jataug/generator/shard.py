"""One shard on its way to the disk: images, flow and float arrays, then the records that describe
them.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .encode import Spool, png, write_npz
from .layout import IMAGES
from .plan import Plan, Shard, canonical
from .store import Store, writing

__all__ = ["Finished", "ShardWriter", "marker_name", "records_name"]

_ARRAYS = {"flow": ("flow", np.float16), "float": ("exact", np.float32)}
"""Folder of a side array: its name in the archive, and its type."""


def records_name(shard: Shard) -> str:
    """Return the path of a shard's records in the destination."""
    return f"records/{shard.name}.jsonl"


def marker_name(shard: Shard) -> str:
    """Return the path of the file that is written when a shard is whole."""
    return f"records/{shard.name}.json"


@dataclass(frozen=True, eq=False)
class Finished:
    """A batch after the attack, without its skipped samples.

    Attributes:
        records: one a image, still without its place on the disk.
        images: (batch, height, width, channel), uint8.
        flow: (batch, 2, height, width), float16.
        exact: (batch, channel, height, width), float32.
        skipped: index, key and reason of the samples left out, as JSON types.
    """

    records: list[dict[str, Any]]
    images: NDArray[np.uint8]
    flow: NDArray[np.float16]
    exact: NDArray[np.float32]
    skipped: list[dict[str, Any]]


class ShardWriter:
    """Writes the batches of one shard; memory holds one batch, whatever the size of the shard.

    Args:
        store: of the destination.
        plan: the formats and shapes.
        shard: which one.
        name_of: the path of a sample's PNG (format "folder").
        pool: encodes and writes the PNG files.
    """

    def __init__(
        self, store: Store, plan: Plan, shard: Shard, name_of: Callable[[int], str], pool: Executor
    ) -> None:
        self._store, self._plan, self._shard = store, plan, shard
        self._name_of, self._pool = name_of, pool
        self._records: list[dict[str, Any]] = []
        self._skipped: list[dict[str, Any]] = []
        self._samples = 0
        channel, height, width = plan.image_shape
        self._spools: dict[str, Spool] = {}
        if plan.format == "npz":
            self._spool("images", np.uint8, (height, width, channel))
        if plan.save_flow:
            self._spool("flow", np.float16, (2, height, width))
        if plan.save_float:
            self._spool("float", np.float32, (channel, height, width))

    def add(self, batch: Finished) -> None:
        """Write one batch; batches come in order.

        Raises:
            DataError: a file cannot be written.
        """
        if self._plan.format == "folder":
            jobs = zip(batch.records, batch.images, strict=True)
            places = list(self._pool.map(lambda job: self._write_png(*job), jobs))
        else:
            file, first = f"{IMAGES}/{self._shard.name}.npz", len(self._records)
            places = [{"file": file, "row": first + k} for k in range(len(batch.records))]
        self._records += ({**r, **p} for r, p in zip(batch.records, places, strict=True))
        self._skipped += batch.skipped
        arrays: dict[str, NDArray[Any]] = {
            "images": batch.images,
            "flow": batch.flow,
            "float": batch.exact,
        }
        for folder, spool in self._spools.items():
            with writing(spool.path):
                spool.append(arrays[folder])
        self._samples += len(batch.records) + len(batch.skipped)

    def finish(self, environment: dict[str, Any]) -> dict[str, Any]:
        """Write what is left, the records last; return the content of the marker.

        Raises:
            DataError: a file cannot be written, or a batch was not.
        """
        # The writer goes on after a batch that failed; its shard must not look whole.
        if self._samples != (expected := self._shard.stop - self._shard.start):
            raise DataError(
                f"{self._shard.name}: expected {expected} samples, got {self._samples}; "
                "run the same command again"
            )
        files = {}
        for folder, spool in self._spools.items():
            name = f"{folder}/{self._shard.name}.npz"
            draft = self._store.temporary()
            with writing(self._store.root / name):
                write_npz(draft, self._members(folder, spool))
                spool.path.unlink()
            files[name] = self._store.publish(draft, name)
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
            "environment": environment,
        }
        self._store.write(marker_name(self._shard), f"{canonical(marker)}\n".encode())
        return marker

    def _spool(self, folder: str, dtype: Any, shape: tuple[int, ...]) -> None:
        with writing(self._store.root):
            self._spools[folder] = Spool(self._store.temporary(), dtype, shape)

    def _members(self, folder: str, spool: Spool) -> dict[str, Spool | NDArray[Any]]:
        indices = self._column("index")
        if folder != "images":
            return {_ARRAYS[folder][0]: spool, "indices": indices}
        return {
            "images": spool,
            "labels": self._column("label"),
            "targets": self._column("target"),
            "indices": indices,
            "keys": np.array([record["key"] for record in self._records], np.str_),
        }

    def _column(self, name: str) -> NDArray[np.int64]:
        return np.array([record[name] for record in self._records], np.int64)

    def _write_png(self, record: dict[str, Any], image: NDArray[np.uint8]) -> dict[str, Any]:
        name = self._name_of(record["index"])
        return {"file": name, "sha256": self._store.write(name, png(image))}
