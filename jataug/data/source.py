"""What every source of images offers, whatever it is stored in."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .unread_files import LeftOut

__all__ = ["Sample", "Source", "fingerprint"]


@dataclass(frozen=True, eq=False)
class Sample:
    """One image of a source.

    Attributes:
        index: its position in the source, from 0.
        key: its name: the relative path without suffix, or the position with leading zeros.
        image: (height, width, channel), uint8.
        label: the class in the source's own numbering, or None where the source has no labels.
    """

    index: int
    key: str
    image: NDArray[np.uint8]
    label: int | None


class Source(ABC):
    """A sequence of images; an image is read when it is asked for, and not kept.

    Attributes:
        classes: the class names by label, or None where labels have no names, or there are none.
        labelled: whether samples have labels.
        random_access: whether any sample can be read as cheaply as the next one, from any thread.
        keys_are_paths: whether a key is a relative path that already says where the image belongs.
        left_out: the files that lie there and are not read; None where nothing but images is looked
            at.
    """

    classes: tuple[str, ...] | None = None
    labelled: bool = False
    random_access: bool = False
    keys_are_paths: bool = False
    left_out: LeftOut | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def key(self, index: int) -> str:
        """Return the name of a sample, without reading its image."""

    @abstractmethod
    def label(self, index: int) -> int | None:
        """Return the label of a sample, without reading its image."""

    @abstractmethod
    def where(self, index: int) -> str:
        """Return how an error message names a sample: its file, or file[position]."""

    @abstractmethod
    def read(self, index: int) -> NDArray[np.uint8]:
        """Return the image of a sample: (height, width, channel), uint8.

        Raises:
            DataError: the image cannot be used; the message names it.
        """

    @abstractmethod
    def describe(self, *, content: bool = False) -> dict[str, Any]:
        """Return kind, absolute path, count and fingerprint, as JSON types.

        Args:
            content: fingerprint the bytes of the files (slow) instead of their sizes and
                modification times.
        """

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"expected an index in [0, {len(self)}), got {index}")
        return Sample(index, self.key(index), self.read(index), self.label(index))

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def fingerprint(root: Path, files: Iterable[str], *, content: bool) -> str:
    """Return "stat:..." (names, sizes, modification times) or "sha256:..." (names, bytes) of files
    under `root`.

    Raises:
        DataError: a file cannot be read.
    """
    total = hashlib.sha256()
    for name in files:
        try:
            total.update(
                f"{name}\0{_mark(root / name, content)}\n".encode("utf-8", "surrogatepass")
            )
        except OSError as error:
            raise DataError(f"{root / name}: expected a readable file: {error.strerror}") from None
    return f"{'sha256' if content else 'stat'}:{total.hexdigest()}"


def _mark(path: Path, content: bool) -> str:
    if content and path.exists():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    try:
        status = path.stat()
    except FileNotFoundError:
        return "missing"  # a broken link, say: reading it names it, or skips it
    return f"{status.st_size}\0{status.st_mtime_ns}"
