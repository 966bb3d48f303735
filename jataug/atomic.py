"""Atomic writes: a file is written under a temporary name, synced and renamed.

`replace_file` and `write_file` write one file beside others. A `Store` writes the files of one
worker of a data set, with its own folder of temporary files.
"""

import hashlib
import itertools
import os
import re
import secrets
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import process
from .errors import DataError

__all__ = [
    "SCRATCH",
    "Store",
    "hash_file",
    "is_temporary",
    "name_write_errors",
    "remove_stale",
    "replace_file",
    "write_file",
]

SCRATCH = ".tmp"
"""Name of the folder of temporary files in a destination."""

_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}")
"""Pattern of the name of a temporary file: machine, process number, random digits."""

_NAME_LENGTH = 40
"""Characters of a file's name that its temporary name keeps; file systems limit the length."""

_STALE = 86_400.0
"""Seconds after which a temporary file of another machine counts as abandoned."""


@contextmanager
def name_write_errors(path: Path) -> Iterator[None]:
    """Turn an operating-system error into one line that names `path`."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: could not be written: {error.strerror or error}") from error


def hash_file(path: Path) -> str | None:
    """Return the sha256 of a file, or None if there is no readable file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


class Store:
    """Writes the files of one worker under `root`. It is safe to share between threads.

    Args:
        root: the destination.
        name: name of the worker's folder of temporary files, unique among workers.

    Raises:
        DataError: a file or folder cannot be written; the message names it.
    """

    def __init__(self, root: Path, name: str | None = None) -> None:
        self.root = root
        self._scratch = root / SCRATCH / (name or secrets.token_hex(8))
        self._numbers = itertools.count()
        with name_write_errors(root):
            self._scratch.mkdir(parents=True)

    def temporary(self) -> Path:
        """Return the path of a new temporary file."""
        return self._scratch / str(next(self._numbers))

    def write(self, name: str, data: bytes) -> str:
        """Write a file atomically and return its sha256."""
        temporary = self.temporary()
        with name_write_errors(self.root / name):
            temporary.write_bytes(data)
        return self.publish(temporary, name, hashlib.sha256(data).hexdigest())

    def publish(self, temporary: Path, name: str, sha256: str | None = None) -> str:
        """Sync a temporary file, move it to `name` and return its sha256.

        Args:
            temporary: a path that `temporary` returned, written.
            name: path of the final file, relative to `root`.
            sha256: the hash, if it is known already.
        """
        final = self.root / name
        with name_write_errors(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("rb+") as file:
                value = sha256 or hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            temporary.replace(final)
        return value

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
        with name_write_errors(self.root / name):
            (self.root / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the temporary files of this worker."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        with suppress(OSError):  # not empty while other workers write
            self._scratch.parent.rmdir()


def write_file(path: Path, data: bytes) -> None:
    """Write a file atomically: it is written under a temporary name, synced and renamed.

    Raises:
        DataError: the file cannot be written.
    """
    with replace_file(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write, then sync it and rename it to `path`.

    After an exception the temporary file is removed and `path` is unchanged.

    Raises:
        DataError: the file cannot be written; the message names it.
    """
    owner = f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name[:_NAME_LENGTH]}.{owner}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"{path}: could not be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def is_temporary(path: Path) -> bool:
    """Return whether the name of a file is that of a temporary file of `replace_file`."""
    return _TEMPORARY.fullmatch(path.name) is not None


def remove_stale(root: Path) -> None:
    """Remove the temporary files below a folder that ended processes have left.

    A file of this machine and boot is removed at once, any other file after a day.
    """
    here, now = _machine(), time.time()
    for path in root.rglob(".*"):
        if found := _TEMPORARY.fullmatch(path.name):
            machine, number = found.groups()
            with suppress(OSError):
                gone = machine == here and process.is_there(int(number), None) is False
                if gone or now - path.stat().st_mtime > _STALE:
                    path.unlink()


def _machine() -> str:
    """Return an identifier of this machine, boot and container: 8 hexadecimal digits."""
    return f"{zlib.crc32(f'{process.host()} {process.space()}'.encode()):08x}"
