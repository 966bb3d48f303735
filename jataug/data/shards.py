"""The files of a source that is several files: named by a folder, or by a pattern in braces."""

import os
import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from ..errors import DataError
from .image_folder import natural
from .source import fingerprint

__all__ = ["expand", "files_mark", "is_pattern", "one_split", "shard_files"]

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")
_SPLIT = re.compile(r"(train|test|validation|valid|val|dev)(?![a-z])", re.IGNORECASE)


def is_pattern(path: Path) -> bool:
    """Whether a path has braces, and is not itself there."""
    return bool(_BRACES.search(str(path))) and not path.exists()


def expand(pattern: str) -> list[Path]:
    """Return the paths of a pattern such as shard-{000000..000012}.tar or {a,b}.tar, in order.

    Raises:
        DataError: braces hold neither a range of numbers nor a list.
    """
    parts = _BRACES.split(pattern)
    choices = [_choices(part, pattern) if k % 2 else [part] for k, part in enumerate(parts)]
    return [Path("".join(chosen)) for chosen in product(*choices)]


def shard_files(place: Path, suffix: str) -> list[Path]:
    """Return the files that a path means: itself, a folder's files with a suffix, or a pattern's.

    Raises:
        DataError: one is missing, or there is none.
    """
    if place.is_dir():
        found = [p for p in place.iterdir() if p.name.lower().endswith(suffix) and p.is_file()]
        found = [path for path in found if not path.name.startswith(".")]
        return sorted(found, key=lambda path: natural(path.name))
    files = expand(str(place)) if is_pattern(place) else [place]
    if missing := [path for path in files if not path.is_file()]:
        raise DataError(
            f"{place}: expected {len(files)} files, got {len(files) - len(missing)}; "
            f"{missing[0].name} is missing"
        )
    return files


def files_mark(files: Sequence[Path], *, content: bool) -> str:
    """Return the fingerprint of files, wherever they lie together; see fingerprint."""
    root = Path(os.path.commonpath([file.parent for file in files]))
    return fingerprint(root, [file.relative_to(root).as_posix() for file in files], content=content)


def one_split(place: Path, files: list[Path]) -> None:
    """Refuse files whose names belong to several splits: they would become one source.

    Raises:
        DataError: for example train-00000.parquet beside test-00000.parquet.
    """
    splits = sorted({m[1].lower() for path in files if (m := _SPLIT.match(path.name))})
    if len(splits) > 1:
        raise DataError(
            f"{place}: expected one split, got {', '.join(splits)}; name the files of one, such as "
            f"{splits[0]}-{{00000..00003}}{files[0].suffix}"
        )


def _choices(inside: str, pattern: str) -> list[str]:
    if found := _RANGE.fullmatch(inside):
        first, last = found.groups()
        if len(first) == len(last) and int(first) <= int(last):
            return [f"{k:0{len(first)}d}" for k in range(int(first), int(last) + 1)]
    elif "," in inside:
        return inside.split(",")
    raise DataError(
        f"{pattern}: expected a range with ends of one length, such as {{000..012}}, or a list, "
        f"such as {{a,b}}, got {{{inside}}}"
    )
