"""A single file that is either whole or as it was before."""

from pathlib import Path

from ..drafts import written

__all__ = ["save"]


def save(path: Path, data: bytes) -> None:
    """Write under a temporary name beside `path`, sync, rename.

    Raises:
        DataError: the file cannot be written.
    """
    with written(path) as draft:
        draft.write_bytes(data)
