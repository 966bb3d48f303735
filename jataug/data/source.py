"""The interface of every source of images."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .unread_files import UnreadFiles

__all__ = ["NO_LABEL", "Sample", "Source", "check_description", "fingerprint"]

NO_LABEL = -1
"""The value for "no label" in an array of numbers."""

_LARGEST = 2**63 - 1


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
    """A sequence of images. Each is read when it is needed and is not kept in memory.

    Attributes:
        classes: the class names by label, or None where labels have no names, or there are none.
        class_folders: whether the order of folder names is all that numbers the classes.
        labelled: whether samples have labels.
        random_access: whether any sample can be read as cheaply as the next one, from any thread.
        keys_are_paths: whether a key is a relative path that already says where the image belongs.
        left_out: the files that lie there and are not read; None where nothing but images is looked
            at.
    """

    classes: tuple[str, ...] | None = None
    class_folders: bool = False
    labelled: bool = False
    random_access: bool = False
    keys_are_paths: bool = False
    left_out: UnreadFiles | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def key(self, index: int) -> str:
        """Return the name of a sample, without reading its image."""

    @abstractmethod
    def label(self, index: int) -> int | None:
        """Return the label of a sample, without reading its image; None where it has none.

        Raises:
            DataError: what is stored as its label is none.
        """

    @abstractmethod
    def where(self, index: int) -> str:
        """Return the name of a sample in error messages: its file, or file[position]."""

    @abstractmethod
    def read(self, index: int) -> NDArray[np.uint8]:
        """Return the image of a sample: (height, width, channel), uint8.

        Raises:
            DataError: the image cannot be used; the message names it.
        """

    @abstractmethod
    def describe(self, *, content: bool = False) -> dict[str, Any]:
        """Return kind, absolute path (if any), count and fingerprint, as JSON types. A run is
        resumed where they are equal: other images must have another fingerprint.

        Args:
            content: fingerprint the bytes of the files (slow) instead of their sizes and
                modification times.
        """

    def folders(self) -> list[Path]:
        """Return the folders that hold the files of the source."""
        path = self.describe().get("path")
        return [Path(path)] if path is not None and Path(path).is_dir() else []

    def read_label(self, value: Any, index: int) -> int | None:
        """Return what is stored as the label of a sample; null and -1 (Hugging Face's word for
        unlabelled) are None.

        Raises:
            DataError: it is no number of a class.
        """
        if value is None or value == NO_LABEL:
            return None
        if type(value) is not int or not 0 <= value <= _LARGEST:
            shown = repr(value)
            raise DataError(
                f"{self.where(index)}: expected an integer label from 0 to {_LARGEST}, or null or "
                f"-1 for none, got {shown if len(shown) <= 40 else f'{shown[:40]}...'}"
            )
        return value

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"expected an index in [0, {len(self)}), got {index}")
        return Sample(index, self.key(index), self.read(index), self.label(index))

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def check_description(source: Source, described: Mapping[str, Any]) -> None:
    """Check that a description has all keys that identify a source.

    Raises:
        DataError: a key of it is missing, or of another type.
    """
    name = f"{type(source).__name__}.describe()"
    for key, kind in (("kind", str), ("count", int), ("fingerprint", str)):
        if not isinstance(value := described.get(key), kind) or value == "":
            raise DataError(f"{name}: expected {key} as {kind.__name__}, got {value!r}")


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
            raise DataError(f"{root / name}: cannot be read: {error.strerror}") from None
    return f"{'sha256' if content else 'stat'}:{total.hexdigest()}"


def _mark(path: Path, content: bool) -> str:
    if content and path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    try:
        status = path.stat()
    except FileNotFoundError:
        return "missing"  # a broken link, say: reading it names it, or skips it
    return f"{status.st_size}\0{status.st_mtime_ns}"
