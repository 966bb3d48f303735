"""What the files of a source looked like when a run was planned, so that a change can be named."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..atomic import name_write_errors
from ..errors import DataError
from . import Source

__all__ = ["Marks"]

_SHOWN = 3
"""How many changed files are named."""


class Marks:
    """Size and modification time of the files of a source: one a sample, or one for all of them.

    Args:
        source: of the images.
        root: where it lies.
        values: (files, 2), int64: bytes and nanoseconds; -1 for what is not there.
    """

    def __init__(self, source: Source, root: Path, values: NDArray[np.int64]) -> None:
        self._source, self._root, self._values = source, root, values
        self._shared = root.is_file()

    @classmethod
    def of(cls, source: Source, path: str | None, count: int) -> Self | None:
        """Look at the files of the first `count` samples; None for a source without a path."""
        if path is None:
            return None
        root = Path(path)
        if root.is_dir() and not source.keys_are_paths:
            return None
        files = [root] if root.is_file() else [Path(source.where(k)) for k in range(count)]
        return cls(source, root, np.array([_mark(file) for file in files], np.int64))

    def check(self, index: int) -> None:
        """Raise DataError where the file of a sample is not what it was."""
        file = self._root if self._shared else Path(self._source.where(index))
        before, now = tuple(self._values[0 if self._shared else index]), _mark(file)
        # One that is gone is named by whoever reads it.
        if before != now and now[0] >= 0:
            raise DataError(
                f"{file}: expected the file that was planned, of {before[0]} bytes, got a changed "
                f"one of {now[0]}; leave the source alone during a run, or begin another data set"
            )

    def save(self, path: Path) -> None:
        """Write the names and marks, a line a file."""
        with (
            name_write_errors(path),
            path.open("w", encoding="utf-8", errors="surrogateescape") as file,
        ):
            file.writelines(f"{line}\n" for line in self._lines())

    def differences(self, path: Path, *, cut: bool) -> list[str]:
        """Name files that are not what `save` wrote: changed, new or gone.

        Args:
            path: what it wrote.
            cut: whether it wrote the first files only, so that others may have been there before.
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
            # What lies beyond a limit is not gone.
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
