"""What can be told about a data set from its own files: hashes, counts, records."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...atomic import hash_file
from ...checks import digest
from ...errors import DataError
from ..counts import Tally
from ..open import StoredShard
from ..schema import PLAN, read_json

__all__ = [
    "content_problems",
    "extra_files",
    "file_problems",
    "index_problems",
    "record_problems",
    "tally_problems",
]

_FIELDS = {
    "index": int,
    "key": str,
    "file": str,
    "sha256": str,
    "label": int,
    "target": int,
    "success": bool,
    "failed": bool,
}
_PREDICTIONS = ("clean_prediction", "adversarial_prediction")


def index_problems(root: Path, index: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong inside index.json, and between it and plan.json."""
    if digest(index["plan"]) != index["plan_hash"]:
        yield "index.json: expected the plan that its hash names, got another"
    try:
        if read_json(root / PLAN).get("plan_hash") != index["plan_hash"]:
            yield "plan.json: expected the plan of index.json, got another"
    except DataError as error:
        yield str(error)
    for name, expected in (index.get("card") or {}).items():
        if (found := hash_file(root / name)) != expected:
            state = "a changed file" if found else "no readable file"
            yield f"{name}: expected the file of the index, got {state}"
    stop = 0
    for entry in index["shards"]:
        if entry["start"] != stop:
            yield f"{entry['name']}: expected samples from {stop}, got from {entry['start']}"
        stop = entry["stop"]
    if stop != index["plan"]["count"]:
        yield f"index.json: expected {index['plan']['count']} samples, got {stop}"
    counted = sum(entry["count"] for entry in index["shards"])
    if counted != index["counts"]["images"]:
        yield f"index.json: expected {index['counts']['images']} images, got {counted}"


def file_problems(root: Path, entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield the files of a shard that are missing or changed; images in folders are not among
    them.
    """
    for name, expected in entry["files"].items():
        if (found := hash_file(root / name)) != expected:
            state = "a changed file" if found else "no readable file"
            yield f"{entry['name']} {name}: expected the file of the index, got {state}"


def record_problems(
    shard: StoredShard, entry: Mapping[str, Any], skipped: set[int]
) -> Iterator[str]:
    """Yield records that are missing, doubled, out of place or malformed."""
    wanted = [k for k in range(entry["start"], entry["stop"]) if k not in skipped]
    for number, record in enumerate(shard.records):
        for name, kind in _FIELDS.items():
            if not isinstance(record, dict) or type(record.get(name)) is not kind:
                yield f"{shard.name} line {number + 1}: expected {name} of type {kind.__name__}"
                return
        for name in _PREDICTIONS:
            if name not in record or type(record[name]) not in (int, type(None)):
                yield f"{shard.name} line {number + 1}: expected {name} of type int, or null"
                return
    if len(wanted) != entry["count"] or len(shard.records) != entry["count"]:
        yield f"{shard.name}: expected {len(wanted)} records, got {len(shard.records)}"
    elif [record["index"] for record in shard.records] != wanted:
        yield f"{shard.name}: expected a record for every sample in order, got others"


def content_problems(shard: StoredShard) -> Iterator[str]:
    """Yield what a shard's files say otherwise than its records."""
    yield from (f"{shard.name} {problem}" for problem in shard.reader.problems())


def extra_files(root: Path, known: set[str]) -> Iterator[str]:
    """Yield the files in the folders of a data set that it does not own."""
    for folder in ("images", "flow", "float", "records"):
        for path in sorted((root / folder).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_file() and name not in known and not path.name.startswith("."):
                yield f"{name}: expected only files of the data set, got an extra one"


def tally_problems(index: Mapping[str, Any], tally: Tally) -> Iterator[str]:
    """Yield the counts of index.json that the records do not add up to."""
    for name in ("images", "failed", "clean_correct", "adversarial_correct"):
        if (found := getattr(tally, name)) != index["counts"].get(name):
            yield f"index.json: expected {index['counts'].get(name)} {name}, got {found}"
