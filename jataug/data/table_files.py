"""Sources that are tables: Parquet files with the Hugging Face Image feature, and data sets that
`datasets` saved to disk.
"""

import json
import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, MissingExtra
from .readers.decode import decode_bytes
from .readers.parquet_rows import ParquetRows
from .readers.shards import files_mark
from .source import NO_LABEL, Source

__all__ = ["DiskSource", "ParquetSource"]

_LABEL_NAMES = ("label", "labels", "cls", "class")
_IMAGE_NAMES = ("image", "img", "images", "png", "jpg")
_KEY_NAMES = ("key", "__key__")

Features = Mapping[str, Any]
"""Columns as `datasets` describes them, as JSON types."""


class TableSource(Source):
    """Rows with an encoded image each.

    Attributes:
        kind: of the source.
    """

    kind: str
    random_access = True

    def _setup(
        self, path: Path, files: Sequence[Path], labels: list[Any] | None, keys: list[Any] | None
    ) -> None:
        self._path, self._files = path.absolute(), [file.absolute() for file in files]
        self._labels = labels or []
        self.labelled = any(value not in (None, NO_LABEL) for value in self._labels)
        good = keys is not None and all(keys) and len(set(keys)) == len(keys)
        self._keys = keys if good else None
        self._digits = max(5, len(str(len(self) - 1)))

    def key(self, index: int) -> str:
        return f"{index:0{self._digits}d}" if self._keys is None else self._keys[index]

    def label(self, index: int) -> int | None:
        return self.read_label(self._labels[index], index) if self.labelled else None

    def read(self, index: int) -> NDArray[np.uint8]:
        where = self.where(index)
        try:
            cell = self._cell(index)
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: expected a whole row, got a damaged one ({error})") from None
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if data is None:
            path = cell.get("path") if isinstance(cell, dict) else None
            held = f"the path {path}" if path else "nothing"
            raise DataError(f"{where}: expected an image inside the table, got {held}")
        return decode_bytes(bytes(data), where)

    def describe(self, *, content: bool = False) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "path": str(self._path),
            "count": len(self),
            "fingerprint": files_mark(self._files, content=content),
        }

    def _cell(self, index: int) -> Any:
        raise NotImplementedError


class ParquetSource(TableSource):
    """Images in Parquet files, in the order of the files.

    Args:
        files: with the same columns each.
        path: what the user named.

    Raises:
        DataError: a file is damaged, there is no image column or no telling which.
        MissingExtra: pyarrow is not installed.
    """

    kind = "parquet"

    def __init__(self, files: Sequence[Path], path: Path) -> None:
        self._tables = [ParquetRows(file) for file in files]
        for table in self._tables:
            if table.schema.names != self._tables[0].schema.names:
                raise DataError(
                    f"{table.path}: expected the columns of {files[0].name}, got "
                    f"{', '.join(table.schema.names)}"
                )
        self._ends = list(accumulate(len(table) for table in self._tables))
        schema = self._tables[0].schema
        features = _stored_features(schema.metadata or {})
        binary = [field.name for field in schema if _holds_bytes(field.type)]
        numbers = [field.name for field in schema if _is_integer(field.type)]
        self._image = _image_column(files[0], schema.names, binary, features)
        label = _label_column(files[0], numbers, features)
        key = next((name for name in _KEY_NAMES if name in schema.names), None)
        self.classes = _names(features, label)
        if not len(self):
            raise DataError(f"{path}: expected at least one row, got none")
        self._setup(path, files, self._column(label), self._column(key))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def where(self, index: int) -> str:
        table, row = self._place(index)
        return f"{table.path}[{row}]"

    def _cell(self, index: int) -> Any:
        table, row = self._place(index)
        return table.cell(row, self._image).as_py()

    def _place(self, index: int) -> tuple[ParquetRows, int]:
        number = bisect_right(self._ends, index)
        return self._tables[number], index - (self._ends[number - 1] if number else 0)

    def _column(self, name: str | None) -> list[Any] | None:
        if name is None:
            return None
        return [value for table in self._tables for value in table.column(name)]


class DiskSource(TableSource):
    """Images in a data set that `datasets` saved with save_to_disk.

    Args:
        path: its folder.

    Raises:
        DataError: the folder is damaged, holds several splits, or there is no image column.
        MissingExtra: `datasets` is not installed.
    """

    kind = "disk"

    def __init__(self, path: Path) -> None:
        from_disk, plain = _datasets()
        if (path / "dataset_dict.json").exists():
            splits = sorted(p.name for p in path.iterdir() if (p / "state.json").exists())
            raise DataError(
                f"{path}: expected one split, got a folder of {', '.join(splits) or 'none'}; "
                f"name one, such as {path / (splits or ['train'])[0]}"
            )
        try:
            rows = from_disk(str(path), keep_in_memory=False)
        except Exception as error:  # damaged JSON and Arrow files raise whatever they lead into
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"{path}: expected a whole data set of `datasets`, got a damaged one ({reason})"
            ) from None
        features = rows.features.to_dict()
        image = _image_column(path, list(features), [], features)
        label = _label_column(path, [], features)
        self._rows = rows.select_columns([image]).cast_column(image, plain(decode=False))
        self._image, self._lock = image, threading.Lock()
        self.classes = _names(features, label)
        if not len(rows):
            raise DataError(f"{path}: expected at least one row, got none")
        labels = None if label is None else list(rows.select_columns([label])[:][label])
        self._setup(path, sorted(p for p in path.iterdir() if p.is_file()), labels, None)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __len__(self) -> int:
        return len(self._rows)

    def where(self, index: int) -> str:
        return f"{self._path}[{index}]"

    def _cell(self, index: int) -> Any:
        with self._lock:
            return self._rows[index][self._image]


def _datasets() -> tuple[Callable[..., Any], Callable[..., Any]]:
    try:
        import datasets.features
        import datasets.load
    except ImportError as error:
        raise MissingExtra(
            f"a data set of `datasets`: expected the package, got an import error ({error}); "
            'pip install "jataug[hf]"'
        ) from None
    return datasets.load.load_from_disk, datasets.features.Image


def _stored_features(metadata: Mapping[bytes, bytes]) -> Features:
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _holds_bytes(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_integer(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_integer(kind))


def _of_type(features: Features, kind: str) -> list[str]:
    return [
        name
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == kind
    ]


def _image_column(
    path: Path, names: Sequence[str], binary: Sequence[str], features: Features
) -> str:
    found = _of_type(features, "Image") or list(binary)
    preferred = [name for name in _IMAGE_NAMES if name in found]
    if len(found) != 1 and not preferred:
        held = f"several ({', '.join(found)})" if found else "none"
        raise DataError(
            f"{path}: expected one column of images, got {held} among the columns "
            f"{', '.join(names)}; name it image"
        )
    return preferred[0] if preferred else found[0]


def _label_column(path: Path, numbers: Sequence[str], features: Features) -> str | None:
    named = _of_type(features, "ClassLabel")
    whole = [*numbers, *(name for name in _of_type(features, "Value") if _whole(features[name]))]
    preferred = [name for name in _LABEL_NAMES if name in named or name in whole]
    if preferred:
        return preferred[0]
    if len(named) > 1:
        raise DataError(
            f"{path}: expected one column of labels, got {', '.join(named)}; name one of them label"
        )
    return named[0] if named else None


def _whole(feature: Mapping[str, Any]) -> bool:
    return "int" in str(feature.get("dtype"))


def _names(features: Features, label: str | None) -> tuple[str, ...] | None:
    feature = features.get(label, {}) if label else {}
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else None
