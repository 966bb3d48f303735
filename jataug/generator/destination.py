"""A destination before, between and after runs: whose it is, and which of its shards are whole."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError
from .marks import Marks
from .plan import Plan, Shard
from .shard import marker_name, records_name
from .store import SCRATCH, file_hash

__all__ = [
    "FORMAT_VERSION",
    "INDEX",
    "PLAN",
    "SOURCE",
    "check_destination",
    "finished",
    "read_json",
    "records",
]

FORMAT_VERSION = 1
INDEX = "index.json"
PLAN = "plan.json"
SOURCE = "source.txt"
"""What the source's files looked like; there until the data set is whole."""


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file.

    Raises:
        DataError: the file is missing, or is no JSON object.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{path}: expected a readable file: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path}: expected JSON, got a damaged file: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def check_destination(root: Path, plan: Plan, marks: Marks | None = None) -> None:
    """Refuse a destination that holds something other than this plan, in whole or in part.

    Raises:
        DataError: it is a file, it cannot be read, it holds foreign files, or another plan's data
            set.
    """
    try:
        held = {entry.name for entry in root.iterdir()} - {SCRATCH, ".DS_Store"}
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{root}: expected a folder to write to: {error.strerror}") from None
    if not held:
        return
    stored = read_json(root / PLAN) if PLAN in held else {}
    if "plan_hash" not in stored:
        raise DataError(
            f"{root}: expected an empty or new folder, got one that holds {min(held)}; "
            "nothing was touched, choose another"
        )
    # A plan alone has made nothing yet, for example where the first image could not be used.
    if held - {SOURCE} != {PLAN} and stored["plan_hash"] != plan.hash:
        differences = plan.differences(stored.get("plan", {}))
        if marks is not None:
            differences += marks.differences(root / SOURCE)
        raise DataError(
            f"{root}: expected the plan that was begun there, got another: "
            f"{'; '.join(differences) or 'its plan.json was changed'}; choose another destination"
        )


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
        raise DataError(f"{path}: expected a readable file: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path}: expected a JSON object a line, got {error}") from None


def finished(root: Path, shard: Shard) -> dict[str, Any] | None:
    """Return the marker of a shard that is whole, its files checked by their sha256; else None."""
    try:
        marker = read_json(root / marker_name(shard))
        names = {**_image_hashes(root, shard, marker), **marker["files"]}
    except (DataError, KeyError, TypeError):
        return None
    if (marker.get("start"), marker.get("stop")) != (shard.start, shard.stop):
        return None
    return marker if all(file_hash(root / n) == value for n, value in names.items()) else None


def _image_hashes(root: Path, shard: Shard, marker: Mapping[str, Any]) -> dict[str, str]:
    if file_hash(root / records_name(shard)) != marker["files"][records_name(shard)]:
        raise DataError(f"{shard.name}: the records were changed")
    return {row["file"]: row["sha256"] for row in records(root, shard) if "sha256" in row}
