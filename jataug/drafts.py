"""Files that are whole or not there: drafts beside them that take their place, and what of those a
killed process has left.
"""

import os
import re
import secrets
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import process
from .errors import DataError

__all__ = ["is_draft", "sweep", "written"]

_NAME = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}")
"""A draft: where its process runs, its number, and something random."""

_SHOWN = 40
"""Characters of a file's name in its draft's, which must not become too long for the system."""

_OLD = 86_400.0
"""Seconds after which nobody writes a draft any more, wherever he may be."""


@contextmanager
def written(final: Path) -> Iterator[Path]:
    """Yield the path of a draft to write, sync it and move it to `final` at the end; remove it
    where an error comes in between.

    Raises:
        DataError: the file cannot be written; the message names it.
    """
    place = f"{_here()}-{os.getpid()}-{secrets.token_hex(4)}"
    draft = final.with_name(f".{final.name[:_SHOWN]}.{place}")
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(final)
    except OSError as error:
        raise DataError(f"{final}: could not be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            draft.unlink()


def is_draft(path: Path) -> bool:
    """Whether a file is a draft, by its name."""
    return _NAME.fullmatch(path.name) is not None


def sweep(root: Path) -> None:
    """Remove the drafts under a folder whose processes are no more: those of this machine since it
    was started, and of any other that are older than a day.
    """
    here, now = _here(), time.time()
    for path in root.rglob(".*"):
        if found := _NAME.fullmatch(path.name):
            place, number = found.groups()
            with suppress(OSError):
                gone = place == here and process.is_there(int(number), None) is False
                if gone or now - path.stat().st_mtime > _OLD:
                    path.unlink()


def _here() -> str:
    """Return what tells apart the machines and containers that may share a folder."""
    return f"{zlib.crc32(f'{process.host()} {process.space()}'.encode()):08x}"
