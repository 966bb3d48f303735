"""A directory of class folders, or of images alone."""

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .decode import decode
from .source import Source, fingerprint
from .unread_files import LeftOut

__all__ = ["SUFFIXES", "FolderSource", "natural"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


def natural(name: str) -> tuple[Any, ...]:
    """Return a sort key that puts "2" before "10", the same on every operating system."""
    # macOS hands out decomposed names, the others what was written.
    parts = re.split(r"([0-9]+)", unicodedata.normalize("NFC", name))
    return tuple(int(p) if k % 2 else p for k, p in enumerate(parts)), name


class FolderSource(Source):
    """Images under a directory: one folder a class, in natural order; or no folders and no labels.

    Every visible folder counts as a class, also an empty one: leaving it out would shift the labels
    after it.

    Raises:
        DataError: there is no image, or there are images beside class folders.
    """

    random_access = True
    keys_are_paths = True

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        files, folders, others = _listing(root)
        if files and folders:
            raise DataError(
                f"{root}: expected class folders or images, got both ({files[0].name} beside "
                f"{folders[0].name}/); move the images into class folders"
            )
        self.labelled = bool(folders)
        self.classes = tuple(folder.name for folder in folders) if folders else None
        self.left_out = LeftOut()
        for other in others:
            self.left_out.add(other.name)
        self._files = [file.name for file in files]
        self._labels: list[int] = []
        for label, folder in enumerate(folders):
            self._files += _walk(folder, folder.name, self.left_out)
            self._labels += [label] * (len(self._files) - len(self._labels))
        if not self._files:
            wanted = " ".join(sorted(SUFFIXES))
            there = f"; {self.left_out}" if self.left_out.count else ""
            raise DataError(f"{root}: expected {wanted} images, got none{there}")

    def __len__(self) -> int:
        return len(self._files)

    def key(self, index: int) -> str:
        return self._files[index].rpartition(".")[0]

    def label(self, index: int) -> int | None:
        return self._labels[index] if self.labelled else None

    def where(self, index: int) -> str:
        return str(self._root / self._files[index])

    def read(self, index: int) -> NDArray[np.uint8]:
        try:
            with (self._root / self._files[index]).open("rb") as file:
                return decode(file, self.where(index))
        except OSError as error:
            raise DataError(
                f"{self.where(index)}: expected a readable file: {error.strerror}"
            ) from None

    def describe(self, *, content: bool = False) -> dict[str, Any]:
        return {
            "kind": "folder",
            "path": str(self._root),
            "count": len(self),
            "fingerprint": fingerprint(self._root, self._files, content=content),
        }


Entries = list[os.DirEntry[str]]


def _listing(folder: Path) -> tuple[Entries, Entries, Entries]:
    """Return the visible images, folders and other files of a directory, in natural order."""
    try:
        with os.scandir(folder) as entries:
            visible = [e for e in entries if not e.name.startswith(".") and e.name != "__MACOSX"]
        visible.sort(key=lambda e: natural(e.name))
        folders = [entry for entry in visible if entry.is_dir()]
        files = [entry for entry in visible if not entry.is_dir()]
    except OSError as error:
        raise DataError(f"{folder}: expected a readable directory: {error.strerror}") from None
    images = [entry for entry in files if _is_image(entry.name)]
    return images, folders, [entry for entry in files if not _is_image(entry.name)]


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def _walk(
    folder: os.DirEntry[str], name: str, left_out: LeftOut, above: tuple[str, ...] = ()
) -> Iterator[str]:
    """Yield the paths of the images in a class folder, `name` being its own; count the others."""
    here = str(Path(folder.path).resolve())
    if here in above:  # a link to a folder that it lies in
        return
    images, folders, others = _listing(Path(folder.path))
    yield from (f"{name}/{image.name}" for image in images)
    for other in others:
        left_out.add(f"{name}/{other.name}")
    for inner in folders:
        yield from _walk(inner, f"{name}/{inner.name}", left_out, (*above, here))
