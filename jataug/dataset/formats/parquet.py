"""images/<shard>.parquet with the Hugging Face Image feature: a row an image, a row group a batch.

Stored, not compressed: PNG does not shrink, and no codec's version shows in the bytes.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...atomic import name_write_errors
from ...data import ParquetRows, decode_bytes, parquet_library
from ...errors import DataError
from ..encode import png
from ..finished_batch import Finished
from ..plan import Plan
from .arrays import Entry, Records
from .target import Target, described

__all__ = ["CARD", "LOADED", "PICTURES", "Reader", "Writer", "features", "prepare"]

PICTURES = True
CARD = "`images/*.parquet`: a row an image, `image` is a Hugging Face Image feature;"
LOADED = "images/*.parquet"
_LABELS = ("label", "target", "clean_prediction", "adversarial_prediction")
_KINDS = {
    **dict.fromkeys(_LABELS, "int64"),
    "loss": "float32",
    "success": "bool",
    "failed": "bool",
    "index": "int64",
    "key": "string",
}


def prepare(plan: Plan) -> dict[str, str]:
    """Return the version of pyarrow, which every file names.

    Raises:
        MissingExtra: it is not installed.
    """
    del plan
    parquet_library()
    import pyarrow as pa

    return {"pyarrow": pa.__version__}


def features(plan: Plan, names: Mapping[int, str] | None) -> dict[str, Any]:
    """Return the columns as Hugging Face's `datasets` describes them, as JSON types."""
    known = [(names or {}).get(k, f"class {k}") for k in range(plan.classes)]
    named = bool(names) and len(set(known)) == len(known)
    label = {"names": known, "_type": "ClassLabel"} if named else _value("int64")
    columns: dict[str, Any] = {"image": {"_type": "Image"}}
    columns |= {k: label if k in _LABELS else _value(kind) for k, kind in _KINDS.items()}
    for name, kind in _arrays(plan).items():
        nested = _value(kind)
        for _ in range(3):
            nested = {"feature": nested, "_type": "Sequence"}  # "List" is new in datasets 4
        columns[name] = nested
    return columns


class Writer:
    """Writes a row group a batch."""

    def __init__(self, target: Target) -> None:
        self._store, self._plan, self._pool = target.store, target.plan, target.pool
        self._name, self._draft = f"images/{target.shard.name}.parquet", target.store.temporary()
        self._schema = _schema(target.plan, target.names)
        self._count = 0
        with name_write_errors(self._store.root / self._name):
            self._file = parquet_library().ParquetWriter(
                self._draft,
                self._schema,
                compression="none",
                use_dictionary=False,
                write_statistics=list(_KINDS),
                write_page_checksum=True,
            )

    def add(self, batch: Finished) -> list[dict[str, Any]]:
        """Write a batch."""
        pictures = list(self._pool.map(png, batch.images))
        if pictures:
            with name_write_errors(self._store.root / self._name):
                table = self._table(batch, pictures)
                self._file.write_table(table, row_group_size=len(pictures))
        first, self._count = self._count, self._count + len(pictures)
        return [
            {
                "file": self._name,
                "row": first + k,
                "sha256": hashlib.sha256(picture).hexdigest(),
            }
            for k, picture in enumerate(pictures)
        ]

    def finish(self, records: list[dict[str, Any]]) -> dict[str, str]:
        """Close and publish the file."""
        del records
        with name_write_errors(self._store.root / self._name):
            self._file.close()
        return {self._name: self._store.publish(self._draft, self._name)}

    def _table(self, batch: Finished, pictures: list[bytes]) -> Any:
        import pyarrow as pa

        rows = [_row(record) for record in batch.records]
        images = [
            {"bytes": data, "path": f"{row['key'].replace('/', '_')}.png"}
            for row, data in zip(rows, pictures, strict=True)
        ]
        columns: dict[str, Any] = {"image": images}
        columns |= {name: [row[name] for row in rows] for name in _KINDS}
        arrays: dict[str, NDArray[Any]] = {"flow": batch.flow, "float": batch.exact}
        columns |= {name: _nested(arrays[name]) for name in _arrays(self._plan)}
        types = {field.name: field.type for field in self._schema}
        made = {
            name: value if isinstance(value, pa.Array) else pa.array(value, types[name])
            for name, value in columns.items()
        }
        return pa.table(made, schema=self._schema)


class Reader:
    """Reads a row group at a time."""

    def __init__(self, root: Path, entry: Entry, records: Records) -> None:
        self._records = records
        self._name = f"images/{entry['name']}.parquet"
        self._rows = ParquetRows(root / self._name, checksums=False)
        if len(self._rows) != len(records):
            raise DataError(f"{self._name}: expected {len(records)} rows, got {len(self._rows)}")
        self._columns = set(self._rows.schema.names)

    def data(self, row: int) -> bytes:
        """Return a PNG file."""
        value = self._rows.cell(row, "image")["bytes"].as_py()
        if value is None:
            raise DataError(f"{self._name}[{row}]: expected an image, got none")
        return bytes(value)

    def image(self, row: int, data: bytes) -> NDArray[np.uint8]:
        """Return the image in a PNG file."""
        return decode_bytes(data, f"{self._rows.path}[{row}]")

    def flow(self, row: int) -> NDArray[np.float16] | None:
        """Return a flow, or None."""
        return self._array(row, "flow")

    def exact(self, row: int) -> NDArray[np.float32] | None:
        """Return a float image, or None."""
        return self._array(row, "float")

    def problems(self) -> Iterator[str]:
        """Yield rows that do not say what the records say."""
        if missing := {"image", *_KINDS} - self._columns:
            yield f"{self._name}: expected a column {min(missing)}, got none"
            return
        bounds = self._rows.bounds
        for number, (first, last) in enumerate(pairwise(bounds)):
            try:
                found = self._rows.group(number, list(_KINDS)).to_pylist()
            except (DataError, UnicodeDecodeError) as error:
                yield f"{self._records[first]['key']}: expected whole rows, got {error}"
                continue
            for record, row in zip(self._records[first:last], found, strict=True):
                wrong = [k for k, value in _row(record).items() if row[k] != value]
                if wrong:
                    yield f"{record['key']}: expected the {wrong[0]} of the records, got another"

    def _array(self, row: int, column: str) -> NDArray[Any] | None:
        if column not in self._columns:
            return None
        planes = self._rows.cell(row, column).values
        lines = planes.flatten()
        numbers = lines.flatten().to_numpy(zero_copy_only=False)
        try:
            return np.asarray(numbers).reshape(len(planes), len(lines) // len(planes), -1)
        except (ValueError, ZeroDivisionError):
            raise DataError(
                f"{self._name}[{row}]: expected a {column} of one shape, got a damaged one"
            ) from None


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as a row: numbers in their columns' precision, text that is UTF-8."""
    row = described(record)
    if row["loss"] is not None:
        row["loss"] = float(np.float32(row["loss"]))
    row["key"] = row["key"].encode("utf-8", "backslashreplace").decode()
    return {name: row[name] for name in _KINDS}


def _arrays(plan: Plan) -> dict[str, str]:
    flow = {"flow": "float16"} if plan.save_flow else {}
    return flow | ({"float": "float32"} if plan.save_float else {})


def _value(kind: str) -> dict[str, Any]:
    return {"dtype": kind, "_type": "Value"}


def _schema(plan: Plan, names: Mapping[int, str] | None) -> Any:
    import pyarrow as pa

    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    fields = [("image", image)]
    fields += [(name, pa.type_for_alias(kind)) for name, kind in _KINDS.items()]
    for name, kind in _arrays(plan).items():
        number = pa.type_for_alias("halffloat" if kind == "float16" else "float")
        fields.append((name, pa.list_(pa.list_(pa.list_(number)))))
    described_as = {"info": {"features": features(plan, names)}}
    return pa.schema(fields, metadata={"huggingface": json.dumps(described_as)})


def _nested(array: NDArray[Any]) -> Any:
    """Return (n, a, b, c) as n lists of lists of lists."""
    import pyarrow as pa

    values = pa.array(np.ascontiguousarray(array).reshape(-1))
    for size in reversed(array.shape[1:]):
        offsets = np.arange(0, len(values) + 1, size, dtype=np.int32)
        values = pa.ListArray.from_arrays(pa.array(offsets), values)
    return values
