"""A single file that is either whole or as it was before."""

import os
import secrets
from pathlib import Path

from ..errors import DataError

__all__ = ["save"]


def save(path: Path, data: bytes) -> None:
    """Write under a temporary name beside `path`, sync, rename.

    Raises:
        DataError: the file cannot be written.
    """
    draft = path.with_name(f".{secrets.token_hex(4)}.partial")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise DataError(f"{path}: could not be written: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)
