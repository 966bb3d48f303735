"""Files that are either whole or absent: written under a temporary name, synced, renamed."""

import hashlib
import itertools
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import DataError

__all__ = ["SCRATCH", "Store", "file_hash", "writing"]

SCRATCH = ".tmp"
"""The folder, inside a destination, of files that are not finished."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an operating-system error into one line that names `path`."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: could not be written: {error.strerror or error}") from error


def file_hash(path: Path) -> str | None:
    """Return the sha256 of a file, or None where there is no readable file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


class Store:
    """The files of one worker under `root`. Safe to share between threads.

    Args:
        root: the destination.
        name: of the worker's folder of unfinished files, which no other worker has.

    Raises:
        DataError: a file or folder cannot be written; the message names it.
    """

    def __init__(self, root: Path, name: str | None = None) -> None:
        self.root = root
        self._scratch = root / SCRATCH / (name or secrets.token_hex(8))
        self._numbers = itertools.count()
        with writing(root):
            self._scratch.mkdir(parents=True)

    def temporary(self) -> Path:
        """Return the path of a new temporary file."""
        return self._scratch / str(next(self._numbers))

    def write(self, name: str, data: bytes) -> str:
        """Write a file whole; return its sha256."""
        draft = self.temporary()
        with writing(self.root / name):
            draft.write_bytes(data)
        return self.publish(draft, name, hashlib.sha256(data).hexdigest())

    def publish(self, draft: Path, name: str, known: str | None = None) -> str:
        """Move a finished temporary file to `name`; return its sha256."""
        final = self.root / name
        with writing(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("rb+") as file:
                value = known or hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            draft.replace(final)
        return value

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with writing(self.root / name):
            (self.root / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the temporary files of this worker."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        with suppress(OSError):  # others are still writing
            self._scratch.parent.rmdir()
