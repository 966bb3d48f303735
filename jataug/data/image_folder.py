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
from .readers.decode import decode
from .source import Source, fingerprint
from .unread_files import UnreadFiles

__all__ = ["SUFFIXES", "FolderSource", "natural", "split_words"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
_SPLIT = re.compile(
    r"(?<![a-z])(?:train|training|test|testing|validation|valid|val|dev|eval)(?![a-z])"
)


def natural(name: str) -> tuple[Any, ...]:
    """Return a sort key that puts "2" before "10", the same on every operating system."""
    # macOS hands out decomposed names, the others what was written.
    parts = re.split(r"([0-9]+)", unicodedata.normalize("NFC", name))
    return tuple(int(p) if k % 2 else p for k, p in enumerate(parts)), name


def split_words(name: str) -> tuple[str, ...]:
    """Return the words in a name that say of which split it is: train, test, val and the like."""
    return tuple(_SPLIT.findall(name.lower()))


class FolderSource(Source):
    """Images under a directory: one folder a class, in natural order; or no folders and no labels.

    Every visible folder counts as a class, also an empty one: leaving it out would shift the labels
    after it.

    Raises:
        DataError: there is no image, there are images beside class folders, or the folders are
            splits with class folders of their own.
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
        if splits := _splits(folders):
            example = next((name for name in splits if "train" not in name.lower()), splits[0])
            raise DataError(
                f"{root}: holds the split{'s' * (len(splits) > 1)} {', '.join(splits)}, with class "
                f"folders of {'their' if len(splits) > 1 else 'its'} own, and no classes; name "
                f"one: {root / example}"
            )
        self.labelled = self.class_folders = bool(folders)
        self.classes = tuple(folder.name for folder in folders) if folders else None
        self.left_out = UnreadFiles()
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
        path = self._root / self._files[index]
        try:
            if path.exists() and not path.is_file():  # a pipe would wait for a writer
                raise DataError(f"{path}: expected a regular file")
            with path.open("rb") as file:
                return decode(file, self.where(index))
        except OSError as error:
            raise DataError(f"{self.where(index)}: cannot be read: {error.strerror}") from None

    def folders(self) -> list[Path]:
        inner = {name.rpartition("/")[0] for name in self._files}
        return [self._root, *(self._root / name for name in sorted(inner))]

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
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None
    images = [entry for entry in files if _is_image(entry.name)]
    return images, folders, [entry for entry in files if not _is_image(entry.name)]


def _splits(folders: Entries) -> list[str]:
    """Return the names of folders that are splits: two or more of different names, or the only
    folder. A class may be called "test": a split holds class folders, and no image itself.
    """
    found = [f for f in folders if split_words(f.name) and _holds_class_folders(Path(f.path))]
    different = len({split_words(folder.name) for folder in found}) > 1
    return [folder.name for folder in found] if different or len(folders) == 1 else []


def _holds_class_folders(folder: Path) -> bool:
    images, inner, _ = _listing(folder)
    return not images and any(_first_image(entry) for entry in inner)


def _first_image(folder: os.DirEntry[str]) -> str | None:
    return next(_walk(folder, folder.name, UnreadFiles()), None)


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def _walk(
    folder: os.DirEntry[str], name: str, left_out: UnreadFiles, above: tuple[str, ...] = ()
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
