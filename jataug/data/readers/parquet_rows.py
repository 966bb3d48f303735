"""Columns of Parquet files, read a row group at a time."""

import os
import threading
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from ...errors import DataError, MissingExtra

__all__ = ["ParquetRows", "parquet_library"]

_HELD = 2
"""Row groups in memory: a batch that begins in one and ends in the next is read by threads."""


def parquet_library() -> Any:
    """Return pyarrow.parquet.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import pyarrow.parquet as library
    except ImportError as error:
        raise MissingExtra(
            f"Parquet: expected pyarrow, got an import error ({error}); "
            'pip install "jataug[parquet]"'
        ) from None
    return library


class ParquetRows:
    """The rows of a Parquet file; memory holds two row groups of the columns that are asked for.

    Safe to share between threads, to pickle, and to carry over a fork.

    Args:
        path: of the file.
        checksums: whether a damaged page is an error; where each row has a hash of its own, reading
            on tells which row it is.

    Attributes:
        schema: its Arrow schema.
        bounds: of its row groups: the first row of each, then the number of rows.

    Raises:
        DataError: it is no Parquet file, or a damaged one.
        MissingExtra: pyarrow is not installed.
    """

    def __init__(self, path: Path, *, checksums: bool = True) -> None:
        self.path, self._checksums = path, checksums
        self._reset()
        file = self._file()
        self.schema = file.schema_arrow
        groups = range(file.metadata.num_row_groups)
        counts = [file.metadata.row_group(k).num_rows for k in groups]
        self.bounds = list(accumulate(counts, initial=0))

    def _reset(self) -> None:
        self._lock, self._process = threading.Lock(), os.getpid()
        self._opened: Any = None
        self._held: dict[tuple[int, tuple[str, ...]], Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("path", "schema", "bounds", "_checksums")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def group(self, number: int, columns: Sequence[str]) -> Any:
        """Return columns of a row group as a pyarrow.Table.

        Raises:
            DataError: the file is damaged there; the message names the rows.
        """
        if self._process != os.getpid():
            self._reset()
        key = (number, tuple(columns))
        with self._lock:
            table = self._held.pop(key, None)
            if table is None:
                table = self._read(number, list(columns))
                mine = [other for other in self._held if other[1] == key[1]]
                for other in mine[: len(mine) - _HELD + 1]:
                    del self._held[other]
            self._held[key] = table
        return table

    def _read(self, number: int, columns: list[str]) -> Any:
        first, last = self.bounds[number], self.bounds[number + 1] - 1
        try:
            table = self._file().read_row_group(number, columns=columns)
            if len(table) != last - first + 1:
                raise ValueError(f"{len(table)} of them")
        except Exception as error:  # Arrow raises whatever damaged bytes lead it into
            raise DataError(
                f"{self.path}: expected whole rows {first} to {last}, got damaged ones "
                f"({_line(error)}); copy the file again"
            ) from None
        return table

    def cell(self, row: int, column: str) -> Any:
        """Return one value as a pyarrow.Scalar."""
        number = bisect_right(self.bounds, row) - 1
        return self.group(number, [column])[column][row - self.bounds[number]]

    def column(self, name: str) -> list[Any]:
        """Return a whole column as Python values; for small ones, such as labels."""
        groups = range(len(self.bounds) - 1)
        return [value for k in groups for value in self.group(k, [name])[name].to_pylist()]

    def _file(self) -> Any:
        library = parquet_library()
        if self._opened is None:
            try:
                self._opened = library.ParquetFile(
                    self.path, page_checksum_verification=self._checksums
                )
            except FileNotFoundError:
                raise DataError(
                    f"{self.path}: expected a Parquet file, got nothing there"
                ) from None
            except Exception as error:  # see above
                raise DataError(
                    f"{self.path}: expected a whole Parquet file, got something else or a damaged "
                    f"one ({_line(error)})"
                ) from None
        return self._opened


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
