"""Rows of arrays in one .npz archive a shard: what the formats that are no containers keep their
flow and float images in.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...atomic import name_write_errors
from ...data import Rows, npz_rows
from ...errors import DataError
from ..encode import Spool, write_npz
from ..finished_batch import Finished
from .target import Target

__all__ = ["Archive", "SideReader", "SideWriter", "archive_rows", "column", "column_problems"]

Entry = Mapping[str, Any]
Records = Sequence[Mapping[str, Any]]


class Archive:
    """An .npz archive with one large array, which is on disk until its length is known.

    Args:
        target: where the shard is written.
        folder: of the archive in the destination.
        array: the name of the large array in the archive.
        dtype: of its entries.
        shape: of one row.
    """

    def __init__(
        self, target: Target, folder: str, array: str, dtype: Any, shape: tuple[int, ...]
    ) -> None:
        self._store, self.array = target.store, array
        self.name = f"{folder}/{target.shard.name}.npz"
        with name_write_errors(target.store.root / self.name):
            self._spool = Spool(target.store.temporary(), dtype, shape)

    def add(self, rows: NDArray[Any]) -> None:
        """Add rows (n, *shape)."""
        with name_write_errors(self._spool.path):
            self._spool.append(rows)

    def finish(self, columns: Mapping[str, NDArray[Any]]) -> str:
        """Write the archive, small arrays after the large one; return its sha256."""
        draft = self._store.temporary()
        with name_write_errors(self._store.root / self.name):
            write_npz(draft, {self.array: self._spool, **columns})
            self._spool.path.unlink()
        return self._store.publish(draft, self.name)


class SideWriter:
    """Writes flow/ and float/, where they are saved."""

    def __init__(self, target: Target) -> None:
        channel, height, width = target.plan.image_shape
        self._flow = self._exact = None
        if target.plan.save_flow:
            self._flow = Archive(target, "flow", "flow", "<f2", (2, height, width))
        if target.plan.save_float:
            self._exact = Archive(target, "float", "exact", "<f4", (channel, height, width))

    def add(self, batch: Finished) -> None:
        """Write a batch."""
        if self._flow:
            self._flow.add(batch.flow)
        if self._exact:
            self._exact.add(batch.exact)

    def finish(self, records: Records) -> dict[str, str]:
        """Publish the archives; return their sha256."""
        indices = column(records, "index")
        made = [archive for archive in (self._flow, self._exact) if archive]
        return {archive.name: archive.finish({"indices": indices}) for archive in made}


class SideReader:
    """Reads flow/ and float/, where they are there."""

    def __init__(self, root: Path, entry: Entry, records: Records) -> None:
        self._root, self._entry, self._records = root, entry, records
        self._flow = archive_rows(root, entry, "flow", "flow", len(records))
        self._exact = archive_rows(root, entry, "float", "exact", len(records))

    def flow(self, row: int) -> NDArray[np.float16] | None:
        """Return a flow, or None."""
        return None if self._flow is None else self._flow[row]

    def exact(self, row: int) -> NDArray[np.float32] | None:
        """Return a float image, or None."""
        return None if self._exact is None else self._exact[row]

    def problems(self) -> Iterator[str]:
        """Yield archives whose rows are not those of the records."""
        for folder, rows in (("flow", self._flow), ("float", self._exact)):
            if rows is not None:
                name = f"{folder}/{self._entry['name']}.npz"
                yield from column_problems(self._root, name, self._records, {"indices": "index"})


def column(records: Records, name: str) -> NDArray[np.int64]:
    """Return one number of every record: (n,), int64."""
    return np.array([record[name] for record in records], np.int64)


def archive_rows(root: Path, entry: Entry, folder: str, array: str, count: int) -> Rows | None:
    """Return the rows of a shard's archive in a folder; None where it has none there.

    Raises:
        DataError: it is missing, damaged, or has another number of rows.
    """
    name = f"{folder}/{entry['name']}.npz"
    if name not in entry["files"]:
        return None
    rows = npz_rows(root / name).get(array)
    if rows is None or len(rows) != count:
        held = "none" if rows is None else len(rows)
        raise DataError(f"{name}: expected {count} rows of {array}, got {held}")
    return rows


def column_problems(
    root: Path, name: str, records: Records, columns: Mapping[str, str]
) -> Iterator[str]:
    """Yield columns of an archive that do not say what the records say.

    Args:
        root: of the data set.
        name: of the archive.
        records: of the shard.
        columns: the field of the records for each array.
    """
    arrays = npz_rows(root / name)
    for held, field in columns.items():
        recorded = np.array([record[field] for record in records])
        found = arrays[held].load() if held in arrays else None
        if found is None or not np.array_equal(found, recorded):
            yield f"{name}: expected the {held} of the records, got others"
