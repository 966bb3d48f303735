"""Verifies a data set before a loader reads images from it."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from ..dataset.open import StoredShard
from ..dataset.verification.file_checks import file_problems, index_problems, record_problems
from ..dataset.verification.verify import verify
from ..errors import CheckError, DataError

__all__ = ["Verify", "check_index", "check_shard", "check_whole"]

Verify = Literal["quick", "read", "full"]
"""How much of a data set is checked. "quick": index, records, and that every image exists. "read":
also the sha256 of each image when it is read. "full": the whole data set before the first read.
"""


def check_index(root: Path, index: Mapping[str, Any]) -> None:
    """Refuse an index that contradicts itself.

    Raises:
        CheckError: names the first problem.
    """
    _refuse(root, index_problems(root, index))


def check_shard(root: Path, index: Mapping[str, Any], entry: Mapping[str, Any]) -> StoredShard:
    """Return a shard after checking that its records match the index and its images exist.

    Raises:
        CheckError: names the first problem.
    """
    records = {n: h for n, h in entry["files"].items() if n.startswith("records/")}
    _refuse(root, file_problems(root, {**entry, "files": records}))
    try:
        shard = StoredShard(root, entry, index["plan"]["format"])
        if shard.records:
            shard.checked(len(shard.records) - 1)  # what a truncated file has lost
    except DataError as error:
        raise CheckError(_failed(root, str(error))) from None
    skipped = {skip["index"] for skip in index["skipped"]}
    _refuse(root, record_problems(shard, entry, skipped))
    _refuse(root, _missing_files(root, shard))
    return shard


def check_whole(root: Path, mode: Verify) -> None:
    """Read the whole data set back where `mode` is "full".

    Raises:
        DataError: the mode is unknown.
        CheckError: names the first problem.
    """
    if mode not in get_args(Verify):
        raise DataError(f"verify: expected one of {', '.join(get_args(Verify))}, got {mode!r}")
    if mode == "full":
        _refuse(root, iter(verify(root).problems))


def _missing_files(root: Path, shard: StoredShard) -> Iterator[str]:
    """Yield a problem for each image file that is missing or empty. Each folder is listed once."""
    sizes: dict[str, dict[str, int]] = {}
    for record in shard.records:
        name = str(record["file"])
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts:
            yield f"{shard.name}: expected a file inside the data set, got {name!r}"
        folder, base = str(place.parent), place.name
        if folder not in sizes:
            sizes[folder] = _sizes(root / folder)
        if not sizes[folder].get(base):
            yield f"{name}: expected the image of {record['key']}, got no file, or an empty one"


def _sizes(folder: Path) -> dict[str, int]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries}
    except OSError:
        return {}


def _refuse(root: Path, problems: Iterator[str]) -> None:
    if (problem := next(problems, None)) is not None:
        raise CheckError(_failed(root, problem))


def _failed(root: Path, problem: str) -> str:
    return f"{root}: expected a data set that verifies: {problem}; run jataug verify"
