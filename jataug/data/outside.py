"""Checks that an output is not inside the source, where later runs would read it as input."""

from pathlib import Path

from ..errors import DataError
from .source import Source

__all__ = ["check_outside"]


def check_outside(output: Path, source: Source) -> None:
    """Refuse a file or folder to write that lies in a folder of the source, links followed.

    Raises:
        DataError: it does; the message names both.
    """
    held = {mark: folder for folder in source.folders() if (mark := _mark(folder)) is not None}
    place = output.resolve()
    for above in (place, *place.parents):
        mark = _mark(above)
        if mark is not None and mark in held:
            raise DataError(
                f"{output}: the output must be outside the source {held[mark]}; use another path"
            )


def _mark(folder: Path) -> tuple[int, int] | None:
    """Return a value that identifies a folder, whatever its path."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
