"""python every_kill.py PLACE SOURCE FORMAT [SEED]: kills of generate; see tests/kills.py."""

import sys
from functools import partial
from pathlib import Path

from conftest import FakeSession
from kills import main

from jataug.generator import generate


def make(source: Path, format: str, out: Path) -> None:
    """Make a small data set of two shards, with all that there can be in it."""
    options = {"batch_size": 2, "shard_size": 2, "limit": 3, "save_flow": True, "save_float": True}
    generate(None, source, out, session=FakeSession(), format=format, **options)  # type: ignore[arg-type]


def content(root: Path) -> dict[str, bytes | None]:
    """Return what every file holds, and None for folders, by name."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


if __name__ == "__main__":
    place, source, format, *seed = sys.argv[1:]
    main(partial(make, Path(source), format), content, Path(place), *map(int, seed))
