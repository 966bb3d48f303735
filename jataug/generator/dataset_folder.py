"""Checks and clean-up of the destination folder: which plan it belongs to, and what to remove."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..atomic import SCRATCH, name_write_errors
from ..data.source_snapshot import SourceSnapshot
from ..dataset.plan import Plan
from ..dataset.plan_diff import explain_mismatch
from ..dataset.schema import INDEX, PLAN, RECORDS, SOURCE, read_json
from ..errors import DataError
from .plan_options import plan_differences

__all__ = [
    "check_destination",
    "clear",
]


_FOLDERS = ("images", "flow", "float", RECORDS)
_WRITTEN = frozenset({".png", ".npz", ".tar", ".parquet", ".json", ".jsonl"})


def check_destination(root: Path, plan: Plan, snapshot: SourceSnapshot | None = None) -> bool:
    """Return whether the shards in a destination belong to this plan.

    It is False for another plan that has not finished a shard: this plan then replaces it.

    Raises:
        DataError: the destination is a file, cannot be read, holds foreign files, or holds shards
            of another plan.
    """
    try:
        held = {entry.name for entry in root.iterdir()} - {SCRATCH, ".DS_Store"}
    except FileNotFoundError:
        return True
    except OSError as error:
        raise DataError(
            f"{root}: cannot be used as the folder to write to: {error.strerror}"
        ) from None
    if not held:
        return True
    stored = read_json(root / PLAN) if PLAN in held else {}
    if "plan_hash" not in stored:
        raise DataError(
            f"{root}: the folder holds {min(held)}, which is not from jataug generate; nothing was "
            "changed. Use a new or empty folder"
        )
    if stored["plan_hash"] == plan.hash:
        return True
    if _has_shards(root):
        raise DataError(_mismatch(root, stored.get("plan", {}), plan.to_dict(), snapshot))
    return False


def _has_shards(root: Path) -> bool:
    """Return whether a complete shard has an image; an unreadable marker counts as one."""
    if (root / INDEX).exists():
        return True
    for path in (root / RECORDS).glob("shard-*.json"):
        try:
            if read_json(path).get("count") != 0:
                return True
        except DataError:
            return True
    return False


def _mismatch(
    root: Path, there: Mapping[str, Any], asked: Mapping[str, Any], snapshot: SourceSnapshot | None
) -> str:
    found = plan_differences(there, asked)
    source = any(difference.name.startswith("source") for difference in found)
    cut = there.get("count") != there.get("source", {}).get("count")
    files = snapshot.differences(root / SOURCE, cut=cut) if source and snapshot is not None else []
    if not found:
        files = ["its plan.json was changed"]
    return explain_mismatch(root, found, files)


def clear(root: Path, before: int) -> None:
    """Remove the files of incomplete shards that a plan without complete shards has left.

    Args:
        root: the destination.
        before: a modification time in nanoseconds. Later files stay: they belong to another worker
            that has started the same plan.

    Raises:
        DataError: a file cannot be removed.
    """
    for folder in (root / name for name in _FOLDERS):
        # In reverse order, so that a folder is empty when its turn comes.
        for path in [*sorted(folder.rglob("*"), reverse=True), folder]:
            with name_write_errors(path):
                if _is_written(path) and path.stat().st_mtime_ns <= before:
                    path.unlink(missing_ok=True)
            with suppress(OSError):  # a file, or a folder that is not empty
                path.rmdir()


def _is_written(path: Path) -> bool:
    return path.is_file() and path.suffix in _WRITTEN
