"""images/<class>/<name>.png: a PNG an image, where an image folder has them."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data import decode_bytes
from ...errors import DataError
from ..encode import png
from ..finished_batch import Finished
from ..plan import Plan
from .arrays import Entry, Records, SideReader, SideWriter
from .target import Target

__all__ = ["CARD", "LOADED", "PICTURES", "Reader", "Writer", "prepare"]

PICTURES = True
CARD = "`images/<class>/<name>.png`: an image a file, under the names of the source;"
LOADED = "images/**/*.png"


def prepare(plan: Plan) -> dict[str, str]:
    """Return nothing: the format needs no other package."""
    del plan
    return {}


class Writer:
    """Writes images as they come."""

    def __init__(self, target: Target) -> None:
        self._target, self._sides = target, SideWriter(target)

    def add(self, batch: Finished) -> list[dict[str, Any]]:
        """Write a batch."""
        places = list(self._target.pool.map(self._write, batch.records, batch.images))
        self._sides.add(batch)
        return places

    def finish(self, records: list[dict[str, Any]]) -> dict[str, str]:
        """Publish flow and float images."""
        return self._sides.finish(records)

    def _write(self, record: dict[str, Any], image: NDArray[np.uint8]) -> dict[str, Any]:
        name = self._target.name_of(record["index"])
        return {"file": name, "sha256": self._target.store.write(name, png(image))}


class Reader:
    """Opens a file an image."""

    def __init__(self, root: Path, entry: Entry, records: Records) -> None:
        self._root, self._name, self._records = root, entry["name"], records
        sides = SideReader(root, entry, records)
        self.flow, self.exact, self._sides = sides.flow, sides.exact, sides

    def data(self, row: int) -> bytes:
        """Return a PNG file."""
        path = self._path(row)
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None

    def image(self, row: int, data: bytes) -> NDArray[np.uint8]:
        """Return the image in a PNG file."""
        return decode_bytes(data, str(self._path(row)))

    def problems(self) -> Iterator[str]:
        """Yield what the archives say otherwise than the records."""
        return self._sides.problems()

    def _path(self, row: int) -> Path:
        name = str(self._records[row]["file"])
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise DataError(f"{self._name}: expected a file inside the data set, got {name!r}")
        return self._root / name
