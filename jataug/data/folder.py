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
        files, folders = _listing(root)
        if files and folders:
            raise DataError(
                f"{root}: expected class folders or images, got both ({files[0].name} beside "
                f"{folders[0].name}/); move the images into class folders"
            )
        self.labelled = bool(folders)
        self.classes = tuple(folder.name for folder in folders) if folders else None
        self._files = [file.name for file in files]
        self._labels: list[int] = []
        for label, folder in enumerate(folders):
            self._files += (f"{folder.name}/{name}" for name in _walk(folder, ()))
            self._labels += [label] * (len(self._files) - len(self._labels))
        if not self._files:
            raise DataError(f"{root}: expected {' '.join(sorted(SUFFIXES))} images, got none")

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


def _listing(folder: Path) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
    """Return the visible images and folders of a directory, in natural order."""
    try:
        with os.scandir(folder) as entries:
            visible = [e for e in entries if not e.name.startswith(".") and e.name != "__MACOSX"]
        folders = [entry for entry in visible if entry.is_dir()]
        files = [e for e in visible if e not in folders and Path(e.name).suffix.lower() in SUFFIXES]
    except OSError as error:
        raise DataError(f"{folder}: expected a readable directory: {error.strerror}") from None
    return sorted(files, key=lambda e: natural(e.name)), sorted(
        folders, key=lambda e: natural(e.name)
    )


def _walk(folder: os.DirEntry[str], above: tuple[str, ...]) -> Iterator[str]:
    here = str(Path(folder.path).resolve())
    if here in above:  # a link to a folder that it lies in
        return
    files, folders = _listing(Path(folder.path))
    yield from (file.name for file in files)
    for inner in folders:
        yield from (f"{inner.name}/{name}" for name in _walk(inner, (*above, here)))
