"""A destination before, between and after runs: whose it is, and which of its shards are whole."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..atomic import SCRATCH, name_write_errors
from ..data.source_snapshot import Marks
from ..dataset.plan import Plan
from ..dataset.schema import INDEX, PLAN, RECORDS, SOURCE, read_json
from ..errors import DataError
from ..plan_diff import refusal
from .plan_options import plan_differences

__all__ = [
    "check_destination",
    "clear",
]


_FOLDERS = ("images", "flow", "float", RECORDS)
_WRITTEN = frozenset({".png", ".npz", ".tar", ".parquet", ".json", ".jsonl"})


def check_destination(root: Path, plan: Plan, marks: Marks | None = None) -> bool:
    """Refuse a destination that holds anything but this plan, in whole or in part; return whether
    the shards that lie there are this plan's. Another plan that has finished none gives way.

    Raises:
        DataError: it is a file, it cannot be read, it holds foreign files, or another plan's data
            set.
    """
    try:
        held = {entry.name for entry in root.iterdir()} - {SCRATCH, ".DS_Store"}
    except FileNotFoundError:
        return True
    except OSError as error:
        raise DataError(f"{root}: expected a folder to write to: {error.strerror}") from None
    if not held:
        return True
    stored = read_json(root / PLAN) if PLAN in held else {}
    if "plan_hash" not in stored:
        raise DataError(
            f"{root}: expected an empty or new folder, got one that holds {min(held)}; "
            "nothing was touched, choose another"
        )
    if stored["plan_hash"] == plan.hash:
        return True
    if _made_any(root):
        raise DataError(
            f"{root}: expected the plan that was begun there, got another: "
            f"{_refusal(root, stored.get('plan', {}), plan.to_dict(), marks)}"
        )
    return False


def _made_any(root: Path) -> bool:
    """Whether a shard with an image in it is whole; one that cannot be read counts as such."""
    if (root / INDEX).exists():
        return True
    for path in (root / RECORDS).glob("shard-*.json"):
        try:
            if read_json(path).get("count") != 0:
                return True
        except DataError:
            return True
    return False


def _refusal(
    root: Path, there: Mapping[str, Any], asked: Mapping[str, Any], marks: Marks | None
) -> str:
    found = plan_differences(there, asked)
    source = any(difference.name.startswith("source") for difference in found)
    cut = there.get("count") != there.get("source", {}).get("count")
    files = marks.differences(root / SOURCE, cut=cut) if source and marks is not None else []
    if not found:
        files = ["its plan.json was changed"]
    return refusal(found, files, "choose another destination")


def clear(root: Path, before: int) -> None:
    """Remove what a plan has left that finished nothing: the files of shards that are not whole.

    Args:
        root: the destination.
        before: nanoseconds: what is younger is another worker's, which has begun the same plan.

    Raises:
        DataError: one cannot be removed.
    """
    for folder in (root / name for name in _FOLDERS):
        # What lies inside a folder comes before it.
        for path in [*sorted(folder.rglob("*"), reverse=True), folder]:
            with name_write_errors(path):
                if _is_written(path) and path.stat().st_mtime_ns <= before:
                    path.unlink(missing_ok=True)
            with suppress(OSError):  # it is no folder, or holds something else
                path.rmdir()


def _is_written(path: Path) -> bool:
    return path.is_file() and path.suffix in _WRITTEN
