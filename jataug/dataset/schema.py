"""The files of a stored data set: their names, the records of a shard, and its marker."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..atomic import hash_file
from ..errors import DataError
from .plan import Shard

__all__ = [
    "FORMAT_VERSION",
    "INDEX",
    "KIND",
    "PLAN",
    "RECORDS",
    "SOURCE",
    "finished",
    "marker_name",
    "read_json",
    "records",
    "records_name",
]


FORMAT_VERSION = 1
INDEX = "index.json"
PLAN = "plan.json"
RECORDS = "records"
SOURCE = "source.txt"
"""A snapshot of the source's files; removed when the data set is complete."""
KIND = "adversarial data set"
"""Value of "kind" in index.json."""


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file.

    Raises:
        DataError: the file is missing, or is no JSON object.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected JSON, got a damaged file: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def records(root: Path, shard: Shard) -> Iterator[dict[str, Any]]:
    """Yield the records of a shard.

    Raises:
        DataError: the file is missing or damaged.
    """
    path = root / records_name(shard)
    try:
        with path.open("rb") as lines:
            yield from (json.loads(line) for line in lines)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected a JSON object a line, got {error}") from None


def finished(root: Path, shard: Shard) -> dict[str, Any] | None:
    """Return the marker of a complete shard, after a check of all sha256; else None."""
    try:
        marker = read_json(root / marker_name(shard))
        names = {**_image_hashes(root, shard, marker), **marker["files"]}
        whole = all(hash_file(root / n) == value for n, value in names.items())
    except (DataError, KeyError, TypeError):
        return None
    if (marker.get("start"), marker.get("stop")) != (shard.start, shard.stop):
        return None
    return marker if whole else None


def _image_hashes(root: Path, shard: Shard, marker: Mapping[str, Any]) -> dict[str, str]:
    if hash_file(root / records_name(shard)) != marker["files"][records_name(shard)]:
        raise DataError(f"{shard.name}: the records were changed")
    return {row["file"]: row["sha256"] for row in records(root, shard) if "sha256" in row}


def records_name(shard: Shard) -> str:
    """Return the path of a shard's records in the destination."""
    return f"records/{shard.name}.jsonl"


def marker_name(shard: Shard) -> str:
    """Return the path of a shard's marker, which is written when the shard is complete."""
    return f"records/{shard.name}.json"
