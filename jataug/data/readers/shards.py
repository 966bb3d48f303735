"""The files of a source that is several files: named by a folder, or by a pattern in braces."""

import os
import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from ...errors import DataError
from ..image_folder import natural, split_words
from ..source import fingerprint

__all__ = ["expand", "files_mark", "is_pattern", "one_split", "shard_files"]

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")


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
    found = sorted({words for path in files if (words := split_words(path.name))})
    if len(found) > 1:
        of_one = [path for path in files if split_words(path.name) == found[0]]
        raise DataError(
            f"{place}: expected one split, got {', '.join('-'.join(words) for words in found)}; "
            f"name the files of one, such as {_pattern(of_one[0], of_one[-1])}, or give each split "
            "a folder of its own"
        )


def _pattern(first: Path, last: Path) -> Path:
    """Return a pattern from one file to another: train-{00000..00012}.tar."""
    ends = [number[0] for p in (first, last) if (number := re.search(r"[0-9]+", p.name))]
    if first == last or len(ends) < 2:
        return first
    return first.with_name(first.name.replace(ends[0], f"{{{ends[0]}..{ends[1]}}}", 1))


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
