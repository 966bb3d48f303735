"""A generated data set as arrays of labels, and images that are read one at a time."""

import hashlib
import io
import os
from collections.abc import Callable
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from ..data import decode_bytes
from ..dataset.open import StoredShard, read_index
from ..errors import DataError
from .check import Verify, check_index, check_shard, check_whole

__all__ = ["StoredSet"]

_PNG = b"\x89PNG\r\n\x1a\n"
_COLUMNS = ("label", "index", "key", "file", "sha256")

_RECORDS = 200_000
"""The most records of all shards that are kept open."""


class StoredSet:
    """The images of a verified data set, in any order. It is safe for threads, pickling and forks.

    Args:
        path: of the data set.
        verify: "quick" checks index, records and that every image is there; "read" also the sha256
            of an image when it is read; "full" reads the whole data set now.

    Attributes:
        root: the folder.
        plan: what the data set was made from.
        shape: (height, width, channel).
        labels: (n,), int64.
        indices: (n,), int64; the position of each sample in the source.
        keys: (n,), bytes; the name of each sample in the source, UTF-8.

    Raises:
        DataError: there is no finished data set.
        CheckError: it does not verify.
    """

    def __init__(self, path: str | PathLike[str], verify: Verify = "quick") -> None:
        self.root = Path(path)
        self._index = read_index(self.root)
        self.plan = self._index["plan"]
        check_whole(self.root, verify)
        check_index(self.root, self._index)
        columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        for entry in self._index["shards"]:
            for record in check_shard(self.root, self._index, entry).records:
                for name, column in columns.items():
                    column.append(record[name])
        channel, height, width = self.plan["image_shape"]
        self.shape = (height, width, channel)
        self.labels = np.array(columns["label"], np.int64)
        self.indices = np.array(columns["index"], np.int64)
        # Bytes in one block: a list of strings would be copied into every forked worker, page by
        # page, as its reference counts change.
        self.keys = np.array([key.encode() for key in columns["key"]])
        self._files = np.array([name.encode() for name in columns["file"]])
        self._ends = np.cumsum([entry["count"] for entry in self._index["shards"]])
        self._digests = _digests(columns["sha256"]) if verify == "read" else None
        self._open()

    def _open(self) -> None:
        size = max(1, int(np.diff(self._ends, prepend=0).max()))
        self._shard: Callable[[int], StoredShard] = lru_cache(max(4, _RECORDS // size))(
            lambda number: StoredShard(
                self.root, self._index["shards"][number], self.plan["format"]
            )
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_shard"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """The number of classes of the model that was attacked."""
        return int(self.plan["classes"])

    @property
    def files(self) -> list[str] | None:
        """The PNG files of the images, where each has its own; else None."""
        if self.plan["format"] != "folder":
            return None
        return [self._path(position) for position in range(len(self))]

    def _path(self, position: int) -> str:
        return f"{self.root}{os.sep}{self._files[position].decode()}"

    def where(self, position: int) -> str:
        """Return the name of a sample for messages."""
        return f"{self.root}: sample {self.indices[position]} ({self.keys[position].decode()})"

    def record(self, position: int) -> dict[str, Any]:
        """Return the index, key and label of a sample, which identify it in the source."""
        return {
            "index": int(self.indices[position]),
            "key": self.keys[position].decode(),
            "label": int(self.labels[position]),
        }

    def image(self, position: int) -> NDArray[np.uint8]:
        """Return an image: (height, width, channel), uint8.

        Raises:
            DataError: it cannot be read; the message names the sample.
        """
        try:
            image = self._read(position)
        except (DataError, OSError) as error:
            raise DataError(f"{self.where(position)}: {error}") from None
        if image.shape != self.shape:
            raise DataError(
                f"{self.where(position)}: expected the shape {self.shape}, got {image.shape}"
            )
        return image

    def _read(self, position: int) -> NDArray[np.uint8]:
        if self.plan["format"] == "folder":
            path = self._path(position)
            with open(path, "rb") as file:  # noqa: PTH123 - a Path costs more than a small image
                data = self._checked(position, file.read())
            image = quick_png(data, self.shape)
            return decode_bytes(data, path) if image is None else image
        number = int(np.searchsorted(self._ends, position, side="right"))
        row = position - (int(self._ends[number - 1]) if number else 0)
        reader = self._shard(number).reader
        data = self._checked(position, reader.data(row))
        image = quick_png(data, self.shape)
        return reader.image(row, data) if image is None else image

    def _checked(self, position: int, data: bytes) -> bytes:
        if self._digests is None:
            return data
        if hashlib.sha256(data).digest() != self._digests[position].tobytes():
            raise DataError("expected the image of the records, got a changed one")
        return data


def _digests(hexadecimal: list[str]) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex("".join(hexadecimal)), np.uint8).reshape(-1, 32)


def quick_png(data: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8] | None:
    """Return the image in a PNG file as the generator writes them; None for anything else, which
    the decoder of foreign files reads, or refuses by name.
    """
    if data[:8] != _PNG or data[24:25] != b"\x08":
        return None
    try:
        # Not Image.open: asking which format it is costs a tenth of a small image.
        image = PngImageFile(io.BytesIO(data))
        plain = image.mode == ("L" if shape[2] == 1 else "RGB") and not image.info
        if not plain or image.size != (shape[1], shape[0]):
            return None
        return np.asarray(image).reshape(shape)
    except Exception:  # damaged bytes can make Pillow's readers raise any error
        return None
