"""A finished adversarial data set as a source: to measure models on it, or to train with it."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.readers.array_rows import Rows, npz_rows
from ..data.readers.decode import decode_bytes
from ..data.readers.parquet_rows import ParquetRows
from ..data.readers.tar_members import Member, read_member
from ..data.source import Source, fingerprint
from ..errors import DataError
from .schema import KIND

__all__ = ["StoredSource", "is_stored"]


class _Place(NamedTuple):
    file: str
    row: int
    member: Member | None


class StoredSource(Source):
    """The adversarial images of a data set that generate made, with their labels.

    Args:
        path: of the data set, of any format.

    Raises:
        DataError: it is not finished, or damaged.
    """

    random_access = True

    def __init__(self, path: Path) -> None:
        self._root = path.absolute()
        index = _json(path / "index.json")
        try:
            plan, shards = index["plan"], [entry["name"] for entry in index["shards"]]
            self._format, count = plan["format"], plan["classes"]
            self.keys_are_paths = plan["source"]["kind"] == "folder"
            names = index["class_names"] or {}
            known = [names[str(k)] for k in range(count) if str(k) in names]
            records = [record for name in shards for record in _records(path, name)]
            self._keys = [str(record["key"]) for record in records]
            self._labels = [int(record["label"]) for record in records]
            self._places = [_place(record) for record in records]
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise DataError(
                f"{path}: expected a whole data set, got a damaged one ({error!r})"
            ) from None
        self.labelled, self.classes = True, tuple(known) if len(known) == count else None
        self._files = ["index.json", *(f"records/{name}.jsonl" for name in shards)]
        self._open()

    def _open(self) -> None:
        self._archive = lru_cache(maxsize=4)(self._images)
        self._table = lru_cache(maxsize=4)(lambda name: ParquetRows(self._root / name))

    def __getstate__(self) -> dict[str, Any]:
        caches = ("_archive", "_table")
        return {name: value for name, value in self.__dict__.items() if name not in caches}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, index: int) -> str:
        return self._keys[index]

    def label(self, index: int) -> int | None:
        return self.read_label(self._labels[index], index)

    def where(self, index: int) -> str:
        place = self._places[index]
        if place.member is not None:
            return f"{self._root / place.file}:{place.member.name}"
        file = self._root / place.file
        return str(file) if self._format == "folder" else f"{file}[{place.row}]"

    def read(self, index: int) -> NDArray[np.uint8]:
        place, where = self._places[index], self.where(index)
        if self._format == "npz":
            return np.asarray(self._archive(place.file)[place.row])
        if self._format == "parquet":
            cell = self._table(place.file).cell(place.row, "image")["bytes"]
            return decode_bytes(bytes(cell.as_py() or b""), where)
        path = self._root / place.file
        if place.member is not None:
            return decode_bytes(read_member(path, place.member), where)
        try:
            return decode_bytes(path.read_bytes(), where)
        except OSError as error:
            raise DataError(f"{where}: cannot be read: {error.strerror}") from None

    def describe(self, *, content: bool = False) -> dict[str, Any]:
        return {
            "kind": "dataset",
            "path": str(self._root),
            "count": len(self),
            "fingerprint": fingerprint(self._root, self._files, content=content),
        }

    def _images(self, name: str) -> Rows:
        rows = npz_rows(self._root / name).get("images")
        if rows is None:
            raise DataError(f"{self._root / name}: expected an array named images, got none")
        return rows


def is_stored(path: Path) -> bool:
    """Whether a folder holds a data set that generate made.

    Raises:
        DataError: it holds one that is not finished.
    """
    index = path / "index.json"
    if index.is_file():
        try:
            return bool(json.loads(index.read_bytes()).get("kind") == KIND)
        except (ValueError, AttributeError, OSError, RecursionError):
            return False
    plan = path / "plan.json"
    if plan.is_file() and b'"plan_hash"' in plan.read_bytes():
        raise DataError(
            f"{path}: expected a finished data set, got one without index.json; run the generate "
            "command that began it again"
        )
    return False


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as an index: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def _records(root: Path, name: str) -> list[dict[str, Any]]:
    path = root / "records" / f"{name}.jsonl"
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _place(record: dict[str, Any]) -> _Place:
    name = str(record["file"])
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"records: expected a file inside the data set, got {name!r}")
    member = None
    if "member" in record:
        member = Member(str(record["member"]), int(record["offset"]), int(record["size"]))
    return _Place(name, int(record.get("row", 0)), member)
