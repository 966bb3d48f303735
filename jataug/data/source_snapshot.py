"""Size and time of the files of a source when a run was planned, to name files that changed."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..atomic import name_write_errors
from ..errors import DataError
from . import Source

__all__ = ["SourceSnapshot"]

_SHOWN = 3
"""Largest number of changed files that a message names."""


class SourceSnapshot:
    """Size and modification time of the files of a source: one per sample, or one for all.

    Args:
        source: the source.
        root: its path.
        values: (files, 2), int64: bytes and nanoseconds, or -1 for a missing file.
    """

    def __init__(self, source: Source, root: Path, values: NDArray[np.int64]) -> None:
        self._source, self._root, self._values = source, root, values
        self._shared = root.is_file()

    @classmethod
    def of(cls, source: Source, path: str | None, count: int) -> Self | None:
        """Return the snapshot of the first `count` samples; None for a source without a path."""
        if path is None:
            return None
        root = Path(path)
        if root.is_dir() and not source.keys_are_paths:
            return None
        files = [root] if root.is_file() else [Path(source.where(k)) for k in range(count)]
        return cls(source, root, np.array([_mark(file) for file in files], np.int64))

    def check(self, index: int) -> None:
        """Raise DataError if the file of a sample has changed since the snapshot."""
        file = self._root if self._shared else Path(self._source.where(index))
        before, now = tuple(self._values[0 if self._shared else index]), _mark(file)
        # A missing file raises its own error when it is read.
        if before != now and now[0] >= 0:
            raise DataError(
                f"{file}: the file changed since the run was planned ({before[0]} bytes then, "
                f"{now[0]} now); leave the source alone during a run, or use another destination"
            )

    def save(self, path: Path) -> None:
        """Write name, size and time of each file, one line per file."""
        with (
            name_write_errors(path),
            path.open("w", encoding="utf-8", errors="surrogateescape") as file,
        ):
            file.writelines(f"{line}\n" for line in self._lines())

    def differences(self, path: Path, *, cut: bool) -> list[str]:
        """Return clauses that name the files that differ from a saved snapshot.

        Args:
            path: the file that `save` wrote.
            cut: whether it has the first files only, so that others are not necessarily new.
        """
        try:
            with path.open(encoding="utf-8", errors="surrogateescape") as file:
                before = dict(line.rstrip("\n").rsplit("\t", 1) for line in file)
        except (OSError, ValueError):
            return []
        now = dict(line.rsplit("\t", 1) for line in self._lines())
        found = [
            f"{name} {'is new' if name not in before else 'was changed'}"
            for name, mark in now.items()
            if before.get(name) != mark and not (cut and name not in before)
        ]
        found += [
            f"{name} is gone"
            for name in before
            # Files beyond a limit still exist.
            if name not in now and not (self._root / ast.literal_eval(name)).exists()
        ]
        more = [f"{len(found) - _SHOWN} files more"] if len(found) > _SHOWN else []
        return [*found[:_SHOWN], *more]

    def _lines(self) -> Iterator[str]:
        for index, (size, time) in enumerate(self._values):
            file = self._root if self._shared else Path(self._source.where(index))
            inside = not self._shared and file.is_relative_to(self._root)
            name = file.relative_to(self._root).as_posix() if inside else file.name
            yield f"{name!r}\t{size} {time}"


def _mark(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns
