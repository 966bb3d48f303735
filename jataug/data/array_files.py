"""Sources that hold their images in one array: .npz files, and the idx files of the MNIST
family.
"""

import gzip
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .readers.array_rows import Rows, npz_rows
from .source import NO_LABEL, Source, fingerprint

__all__ = ["ArraySource", "idx_pair", "open_idx", "open_npz"]


class ArraySource(Source):
    """Images in one array, and labels in another or none.

    Args:
        kind: "npz" or "idx".
        images: (count, height, width[, channel]), uint8.
        labels: (count,), int64, or None.
        files: what the fingerprint covers; the first one names the source.
    """

    def __init__(
        self, kind: str, images: Rows, labels: NDArray[np.int64] | None, files: list[Path]
    ) -> None:
        self._kind, self._images, self._labels = kind, images, labels
        self._files = [file.absolute() for file in files]
        self._digits = max(5, len(str(len(images) - 1)))
        self.labelled = labels is not None and bool((labels != NO_LABEL).any())

    def __len__(self) -> int:
        return len(self._images)

    def key(self, index: int) -> str:
        return f"{index:0{self._digits}d}"

    def label(self, index: int) -> int | None:
        return None if self._labels is None else self.read_label(int(self._labels[index]), index)

    def where(self, index: int) -> str:
        return f"{self._files[0]}[{index}]"

    def read(self, index: int) -> NDArray[np.uint8]:
        image = self._images[index]
        return image if image.ndim == 3 else image[:, :, None]

    def describe(self, *, content: bool = False) -> dict[str, Any]:
        root, names = self._files[0].parent, [file.name for file in self._files]
        return {
            "kind": self._kind,
            "path": str(self._files[0]),
            "count": len(self),
            "fingerprint": fingerprint(root, names, content=content),
        }


def open_npz(path: Path) -> ArraySource:
    """Return the images of an .npz file: images uint8 (N, H, W[, C]), labels integer (N,) if there
    are any.

    Raises:
        DataError: the arrays are missing or of another kind.
    """
    arrays = npz_rows(path)
    if "images" not in arrays:
        held = ", ".join(arrays) or "nothing"
        raise DataError(f"{path}: expected an array named images, got {held}")
    images = arrays["images"]
    if images.dtype == np.uint8 and images.shape[:1] == (0,):
        raise DataError(f"{path}: expected at least one image, got none")
    if images.dtype != np.uint8 or len(images.shape) not in (3, 4) or 0 in images.shape:
        raise DataError(
            f"{path}: expected images uint8 (count, height, width[, channel]), "
            f"got {images.dtype} {images.shape}"
        )
    labels = _npz_labels(path, arrays["labels"], len(images)) if "labels" in arrays else None
    return ArraySource("npz", images, labels, [path])


def _npz_labels(path: Path, labels: Rows, count: int) -> NDArray[np.int64]:
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise DataError(
            f"{path}: expected labels integer ({count},), got {labels.dtype} {labels.shape}"
        )
    loaded = labels.load()
    if (beyond := loaded > np.iinfo(np.int64).max).any():
        index = int(beyond.argmax())
        raise DataError(
            f"{path}[{index}]: expected a label below 2**63, got {loaded[index]}; store the labels "
            "as int64"
        )
    return loaded.astype(np.int64)


def open_idx(path: Path) -> ArraySource:
    """Return the images of an idx3 file, gzipped or not, with the labels beside it if they are
    there.

    Raises:
        DataError: a file is not idx, is truncated, or images and labels differ in number.
    """
    images = _idx_rows(path, 3)
    beside = _labels_of(path)
    if beside is None:
        return ArraySource("idx", images, None, [path])
    labels = _idx_rows(beside, 1)
    if len(labels) != len(images):
        raise DataError(f"{beside}: expected {len(images)} labels, got {len(labels)}")
    return ArraySource("idx", images, labels.load().astype(np.int64), [path, beside])


def idx_pair(folder: Path) -> Path | None:
    """Return the images file of the one idx pair in a directory; None if there is none.

    Raises:
        DataError: there are several.
    """
    found = sorted(
        path
        for path in folder.iterdir()
        if path.name.removesuffix(".gz").endswith("images-idx3-ubyte") and _labels_of(path)
    )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{folder}: expected one idx pair, got {names}; name the file you mean")
    return found[0] if found else None


def _labels_of(path: Path) -> Path | None:
    name = path.name.replace("images-idx3", "labels-idx1")
    if name == path.name:
        return None
    other = name.removesuffix(".gz") if name.endswith(".gz") else f"{name}.gz"
    return next((p for p in (path.with_name(name), path.with_name(other)) if p.is_file()), None)


def _open(path: Path, gzipped: bool) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if gzipped else path.open("rb")


def _idx_rows(path: Path, dimensions: int) -> Rows:
    header = 4 + 4 * dimensions
    try:
        with path.open("rb") as raw:
            gzipped = raw.read(2) == b"\x1f\x8b"
        with _open(path, gzipped) as stream:
            head = stream.read(header)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as an idx file: {error}") from None
    if head[:4] != bytes([0, 0, 8, dimensions]) or len(head) != header:
        raise DataError(
            f"{path}: expected an idx{dimensions} file of unsigned bytes, got the header "
            f"{head[:4].hex()}"
        )
    shape = struct.unpack(f">{dimensions}I", head[4:])
    if 0 in shape:
        raise DataError(f"{path}: expected at least one entry, got the shape {shape}")
    return Rows(partial(_open, path, gzipped), header, shape, np.dtype(np.uint8), str(path))
