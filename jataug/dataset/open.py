"""Opens a finished data set and reads its images one at a time."""

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import accumulate
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..checks import known_fields
from ..config import AttackConfig
from ..errors import DataError, JataugError
from .formats import format_of
from .formats.target import ShardReader, raw
from .plan import Plan, Shard
from .schema import FORMAT_VERSION, INDEX, KIND, PLAN, read_json, records

__all__ = ["Dataset", "StoredSample", "StoredShard", "open_dataset", "read_index"]


_NAMED = {"flow": "flow", "float": "float image"}


@dataclass(frozen=True, eq=False)
class StoredSample:
    """One image of a data set.

    Attributes:
        index: position of the image in the source.
        key: name of the image in the source.
        image: the adversarial image, (height, width, channel), uint8.
        label: the true class, or the model's prediction if the source had no labels.
        target: the target class of the attack.
        record: the whole record of the image.
        flow: (2, height, width), float16, (dx, dy) in pixels; None if flows were not saved.
    """

    index: int
    key: str
    image: NDArray[np.uint8]
    label: int
    target: int
    record: Mapping[str, Any]
    flow: NDArray[np.float16] | None


class StoredShard:
    """One shard of a data set. Records are read when it is opened, arrays row by row.

    Args:
        root: folder of the data set.
        entry: entry of the shard in the index.
        format: format of the data set.

    Raises:
        DataError: a file of the shard is missing or damaged.
    """

    def __init__(self, root: Path, entry: Mapping[str, Any], format: str) -> None:
        self.name = entry["name"]
        number = int(self.name.rpartition("-")[2])
        self.shard = Shard(number, entry["start"], entry["stop"])
        self.records = list(records(root, self.shard))
        self.reader: ShardReader = format_of(format).Reader(root, entry, self.records)

    def image(self, row: int) -> NDArray[np.uint8]:
        """Return the image of a row: (height, width, channel), uint8."""
        return self.reader.image(row, self.reader.data(row))

    def checked(self, row: int) -> NDArray[np.uint8]:
        """Return the image of a row after a check of its sha256.

        Raises:
            DataError: the bytes differ from the records or cannot be read.
        """
        data = self.reader.data(row)
        if hashlib.sha256(data).hexdigest() != self.records[row]["sha256"]:
            raise DataError("expected the image of the records, got a changed one")
        return self.reader.image(row, data)

    def side(self, row: int, name: Literal["flow", "float"]) -> NDArray[Any] | None:
        """Return a flow or a float image after a check of its sha256; None if it was not saved.

        Raises:
            DataError: the numbers differ from the records or cannot be read.
        """
        array = self.flow(row) if name == "flow" else self.exact(row)
        expected = self.records[row].get(f"{name}_sha256")
        found = None if array is None else hashlib.sha256(raw(array)).hexdigest()
        if found != expected:
            state = "none" if found is None else "a changed one"
            raise DataError(f"expected the {_NAMED[name]} of the records, got {state}")
        return array

    def flow(self, row: int) -> NDArray[np.float16] | None:
        """Return the flow of a row, (2, height, width), float16; None if flows were not saved."""
        return self.reader.flow(row)

    def exact(self, row: int) -> NDArray[np.float32] | None:
        """Return the image before quantisation: (channel, height, width), float32, or None."""
        return self.reader.exact(row)


class Dataset:
    """The images of a data set, in the order of the source.

    Attributes:
        index: the content of index.json.
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.index = root, read_index(root)
        self._ends = list(accumulate(entry["count"] for entry in self.index["shards"]))
        self._shard = lru_cache(maxsize=4)(self._open)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, position: int) -> StoredSample:
        if not 0 <= position < len(self):
            raise IndexError(
                f"{self.root}: expected a position in [0, {len(self)}), got {position}"
            )
        number = bisect_right(self._ends, position)
        shard = self._shard(number)
        row = position - (self._ends[number - 1] if number else 0)
        try:
            record = shard.records[row]
            index, key, label, target = (record[k] for k in ("index", "key", "label", "target"))
            image, flow = shard.image(row), shard.flow(row)
        except (IndexError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.root}: {shard.name}: expected a whole record in row {row}, got a changed "
                f"one ({error!r}); run jataug verify"
            ) from None
        return StoredSample(index, key, image, label, target, record, flow)

    def __iter__(self) -> Iterator[StoredSample]:
        return (self[position] for position in range(len(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Dataset, (self.root,)

    def _open(self, number: int) -> StoredShard:
        return StoredShard(self.root, self.index["shards"][number], self.index["plan"]["format"])


def open_dataset(path: str | PathLike[str]) -> Dataset:
    """Return a finished data set, of any format; images are read when they are asked for.

    Raises:
        DataError: there is no data set, it is not finished, or it is newer than this version.
    """
    return Dataset(Path(path))


def read_index(root: Path) -> dict[str, Any]:
    """Return the content of index.json.

    Raises:
        DataError: it is missing, damaged, of another kind, or newer than this version.
    """
    if not (root / INDEX).exists():
        if (root / PLAN).exists():
            raise DataError(
                f"{root}: expected a finished data set, got one without {INDEX}; "
                "run the same generate command again to finish it"
            )
        there = f"a place without {INDEX}" if root.exists() else "nothing there"
        raise DataError(f"{root}: expected a data set, got {there}")
    index = read_json(root / INDEX)
    version = index.get("format_version")
    if not isinstance(version, int) or index.get("kind") != KIND:
        raise DataError(f"{root / INDEX}: expected the index of an {KIND}, got something else")
    if version > FORMAT_VERSION:
        raise DataError(
            f"{root / INDEX}: expected format_version {FORMAT_VERSION} or lower, got {version}; "
            "update jataug"
        )
    if reason := _malformed(index):
        raise DataError(f"{root / INDEX}: expected a whole index, got a changed one ({reason})")
    return index


_KINDS: dict[str, Any] = {
    "plan": dict,
    "plan_hash": str,
    "counts": dict,
    "shards": list,
    "skipped": list,
    "environments": list,
    "card": dict | None,
    "class_names": dict | None,
    "model": dict | None,
    "source_path": str | None,
}


def _malformed(index: Mapping[str, Any]) -> str | None:
    """Return what makes an index unreadable, or None."""
    for name, kind in _KINDS.items():
        if not isinstance(index.get(name), kind):
            return f"no {name}"
    for name in ("images", "failed", "skipped"):
        if type(index["counts"].get(name)) is not int:
            return f"counts: no {name}"
    if not all(isinstance(s, dict) and type(s.get("index")) is int for s in index["skipped"]):
        return "skipped: no index"
    model = index.get("model")
    if model is not None and not isinstance(model.get("preprocessing"), dict):
        return "model: no preprocessing"
    if missing := {field.name for field in fields(Plan)} - {*index["plan"], "backend", "tf32"}:
        return f"plan: no {min(missing)}"
    try:
        Plan(**known_fields(Plan, index["plan"]))
        AttackConfig.from_dict(index["plan"]["attack"])
    except (JataugError, TypeError) as error:
        return f"plan: {error}"
    for entry in index["shards"]:
        for name, of in {
            "name": str,
            "start": int,
            "stop": int,
            "count": int,
            "files": dict,
        }.items():
            if not isinstance(entry, dict) or type(entry.get(name)) is not of:
                return f"shards: no {name}"
        if not re.fullmatch(r"shard-[0-9]{5,}", entry["name"]):
            return f"shards: {entry['name']!r}"
    return None if index["shards"] else "no shards"
