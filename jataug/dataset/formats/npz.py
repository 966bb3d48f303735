"""images/<shard>.npz: an uncompressed archive a shard, its rows in the order of the records."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..finished_batch import Finished
from ..plan import Plan
from .arrays import (
    Archive,
    Entry,
    Records,
    SideReader,
    SideWriter,
    archive_rows,
    column,
    column_problems,
)
from .target import Target, raw

__all__ = ["CARD", "LOADED", "PICTURES", "Reader", "Writer", "prepare"]

PICTURES = False
CARD = "`images/*.npz`: arrays `images`, `labels`, `targets`, `indices`, `keys`, a row an image;"
LOADED = "records/*.jsonl"
_COLUMNS = {"labels": "label", "targets": "target", "indices": "index", "keys": "key"}


def prepare(plan: Plan) -> dict[str, str]:
    """Return nothing: the format needs no other package."""
    del plan
    return {}


class Writer:
    """Appends images to a temporary file."""

    def __init__(self, target: Target) -> None:
        channel, height, width = target.plan.image_shape
        self._images = Archive(target, "images", "images", np.uint8, (height, width, channel))
        self._sides, self._count = SideWriter(target), 0

    def add(self, batch: Finished) -> list[dict[str, Any]]:
        """Write a batch."""
        self._images.add(batch.images)
        self._sides.add(batch)
        first, self._count = self._count, self._count + len(batch.images)
        return [
            {
                "file": self._images.name,
                "row": first + k,
                "sha256": hashlib.sha256(raw(image)).hexdigest(),
            }
            for k, image in enumerate(batch.images)
        ]

    def finish(self, records: list[dict[str, Any]]) -> dict[str, str]:
        """Publish the archives."""
        columns = {
            "labels": column(records, "label"),
            "targets": column(records, "target"),
            "indices": column(records, "index"),
            "keys": np.array([record["key"] for record in records], np.str_),
        }
        images = {self._images.name: self._images.finish(columns)}
        return {**images, **self._sides.finish(records)}


class Reader:
    """Reads row by row."""

    def __init__(self, root: Path, entry: Entry, records: Records) -> None:
        self._root, self._name, self._records = root, f"images/{entry['name']}.npz", records
        images = archive_rows(root, entry, "images", "images", len(records))
        if images is None or images.dtype != np.uint8:
            raise DataError(f"{self._name}: expected images, uint8, got none")
        sides = SideReader(root, entry, records)
        self.flow, self.exact, self._sides = sides.flow, sides.exact, sides
        self._images = images

    def data(self, row: int) -> bytes:
        """Return the levels of an image."""
        return raw(self._images[row])

    def image(self, row: int, data: bytes) -> NDArray[np.uint8]:
        """Return the levels as an image."""
        del row
        return np.frombuffer(data, np.uint8).reshape(self._images.shape[1:])

    def problems(self) -> Iterator[str]:
        """Yield columns that do not say what the records say."""
        yield from column_problems(self._root, self._name, self._records, _COLUMNS)
        yield from self._sides.problems()
