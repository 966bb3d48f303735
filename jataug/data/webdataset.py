"""Tar shards in the WebDataset convention: files that share a name up to the first dot are one
sample.
"""

import json
import re
from array import array
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .image_folder import SUFFIXES
from .readers.decode import decode_bytes
from .readers.shards import files_mark
from .readers.tar_members import Member, read_member, tar_members
from .source import NO_LABEL, Source

__all__ = ["TarSource"]

_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")
_IMAGES = frozenset(suffix.removeprefix(".") for suffix in SUFFIXES)
_LABELS = ("label", "cls")

Parts = dict[str, Member]
"""The files of one sample, by what comes after the first dot."""


class TarSource(Source):
    """Images in tar shards, found once and then read at their offsets.

    The label is `cls`, or else `label` or `cls` in `json`. A key that several shards use is
    preceded by the name of its shard.

    Args:
        files: the shards, in order.
        path: what the user named.

    Raises:
        DataError: a tar is damaged, there is no image, or a label cannot be read.
    """

    random_access = True

    def __init__(self, files: Sequence[Path], path: Path) -> None:
        self._path, self._files = path.absolute(), [file.absolute() for file in files]
        self._keys: list[str] = []
        self._labels = array("q")
        # Shard, offset and size of each image; size -1 where a sample has none.
        self._places = array("q")
        self._suffixes: list[str] = []
        self._dotted: dict[int, str] = {}
        for number, file in enumerate(self._files):
            for key, parts in _samples(file):
                self._add(number, key, parts)
        self._check()
        if len(set(self._keys)) != len(self._keys):
            self._keys = [f"{self._shard(k).stem}/{key}" for k, key in enumerate(self._keys)]

    def _add(self, number: int, key: str, parts: Parts) -> None:
        images = [suffix for suffix in parts if suffix.lower() in _IMAGES]
        if len(images) > 1:
            raise DataError(
                f"{self._files[number]}:{key}: expected one image a sample, got "
                f"{' and '.join(images)}; leave one of them"
            )
        image = parts[images[0]] if images else Member("", 0, -1)
        dotted = (suffix for suffix in parts if suffix.lower().rpartition(".")[2] in _IMAGES)
        if not images and (suffix := next(dotted, None)):
            self._dotted[len(self._keys)] = f"{key}.{suffix}"
        self._places.extend((number, image.offset, image.size))
        self._suffixes.append(images[0] if images else "")
        self._keys.append(key)
        label = self.read_label(_label(self._files[number], key, parts), len(self._keys) - 1)
        self._labels.append(NO_LABEL if label is None else label)
        self.labelled = self.labelled or label is not None

    def _check(self) -> None:
        if any(self._suffixes):
            return
        count = len(self._keys)
        held = f"{count} sample{'s' * (count != 1)} without one" if count else "nothing"
        cause = f": {_at_the_first_dot(next(iter(self._dotted.values())))}" if self._dotted else ""
        raise DataError(f"{self._path}: expected {', '.join(sorted(_IMAGES))}, got {held}{cause}")

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, index: int) -> str:
        return self._keys[index]

    def label(self, index: int) -> int | None:
        return self.read_label(self._labels[index], index)

    def where(self, index: int) -> str:
        name = self._keys[index]
        shard = self._shard(index)
        suffix = self._suffixes[index]
        return f"{shard}:{name.removeprefix(f'{shard.stem}/')}{f'.{suffix}' if suffix else ''}"

    def read(self, index: int) -> NDArray[np.uint8]:
        _, offset, size = self._places[3 * index : 3 * index + 3]
        where = self.where(index)
        if size < 0:
            cause = f": {_at_the_first_dot(self._dotted[index])}" if index in self._dotted else ""
            raise DataError(f"{where}: expected an image in the sample, got none{cause}")
        data = read_member(self._shard(index), Member(self._keys[index], offset, size))
        return decode_bytes(data, where)

    def describe(self, *, content: bool = False) -> dict[str, Any]:
        return {
            "kind": "tar",
            "path": str(self._path),
            "count": len(self),
            "fingerprint": files_mark(self._files, content=content),
        }

    def _shard(self, index: int) -> Path:
        return self._files[self._places[3 * index]]


def _at_the_first_dot(name: str) -> str:
    """Say why a file is no image of its sample, and what to do."""
    folder, slash, base = name.rpartition("/")
    key, _, suffix = base.partition(".")
    stem, _, ending = base.rpartition(".")
    better = f"{stem.replace('.', '_')}.{ending}"
    return (
        f"WebDataset cuts a name at the first dot, so that {folder}{slash}{base} is the part "
        f"{suffix} of the sample {key}; write the shard with other names, such as {better}"
    )


def _samples(file: Path) -> Iterator[tuple[str, Parts]]:
    """Yield the samples of a shard: the runs of files whose names are one up to the first dot."""
    named = ((_split(member.name), member) for member in tar_members(file))
    plain = ((name, member) for name, member in named if name is not None)
    seen: set[str] = set()
    for key, group in groupby(plain, lambda pair: pair[0][0]):
        if key in seen:
            raise DataError(
                f"{file}:{key}: expected the files of a sample one after the other, got others in "
                "between; write the shard again, sorted"
            )
        seen.add(key)
        parts: Parts = {}
        for (_, suffix), member in group:
            if suffix in parts:
                raise DataError(f"{file}:{member.name}: expected it once, got it twice")
            parts[suffix] = member
        yield key, parts


def _split(name: str) -> tuple[str, str] | None:
    """Return the key and the suffix of a file; None for one that is no part of a sample."""
    name = name.removeprefix("./")
    found = _NAME.fullmatch(name)
    return None if found is None or _META.match(name) else (found[1], found[2])


def _label(file: Path, key: str, parts: Parts) -> int | None:
    if member := parts.get("cls"):
        text = read_member(file, member)
        try:
            return int(text)
        except ValueError:
            shown = text[:40].decode("utf-8", "replace")
            raise DataError(f"{file}:{key}.cls: expected an integer label, got {shown!r}") from None
    return _described(file, parts["json"]) if "json" in parts else None


def _described(file: Path, member: Member) -> int | None:
    try:
        value = json.loads(read_member(file, member))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}:{member.name}: expected JSON, got {error}") from None
    found = [value[name] for name in _LABELS if isinstance(value, dict) and name in value]
    if not found:
        return None
    if found[0] is not None and type(found[0]) is not int:
        raise DataError(f"{file}:{member.name}: expected an integer label, got {found[0]!r}")
    label: int | None = found[0]
    return label
