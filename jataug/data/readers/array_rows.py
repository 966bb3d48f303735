"""Arrays inside files, read one row at a time: a file may be larger than the memory."""

import math
import os
import struct
import threading
import weakref
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from .npy import read_header

__all__ = ["Rows", "npz_rows"]

_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    zipfile.BadZipFile,
    RuntimeError,
    struct.error,
)


class Rows:
    """The rows of an array that lies in a stream, in C order.

    Reading the next row is cheap; reading an earlier one of a compressed stream starts over. Safe
    to share between threads, to pickle, and to carry over a fork.

    Args:
        opener: opens the stream; picklable.
        offset: of the first row in the stream, bytes.
        shape: of the whole array.
        dtype: of its entries.
        where: the name of the file in error messages.
    """

    def __init__(
        self,
        opener: Callable[[], IO[bytes]],
        offset: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        where: str,
    ) -> None:
        self.shape, self.dtype, self.where = shape, dtype, where
        self._opener, self._offset = opener, offset
        self._size = dtype.itemsize * math.prod(shape[1:])
        self._reset()

    def _reset(self) -> None:
        self._lock, self._process = threading.Lock(), os.getpid()
        self._stream: IO[bytes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        private = ("_lock", "_process", "_stream")
        return {name: value for name, value in self.__dict__.items() if name not in private}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> NDArray[Any]:
        """Return one row: shape[1:].

        Raises:
            DataError: the file is damaged or truncated.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.where}: expected a row in [0, {len(self)}), got {index}")
        data = self._read(self._offset + index * self._size, self._size, f"{self.where}[{index}]")
        return np.frombuffer(data, self.dtype).reshape(self.shape[1:])

    def load(self) -> NDArray[Any]:
        """Return the whole array; for small ones, such as labels."""
        data = self._read(self._offset, self._size * len(self), self.where)
        return np.frombuffer(data, self.dtype).reshape(self.shape)

    def _read(self, offset: int, size: int, where: str) -> bytes:
        if self._process != os.getpid():  # a stream inherited over a fork shares its position
            self._reset()
        try:
            with self._lock:
                if self._stream is None:
                    self._stream = self._opener()
                    weakref.finalize(self, self._stream.close)
                self._stream.seek(offset)
                data = self._stream.read(size)
        except _DAMAGED as error:
            raise DataError(_damaged(where, error)) from None
        if len(data) != size:
            raise DataError(
                f"{where}: expected {size} bytes, got {len(data)}: the file is truncated; "
                "copy it again"
            )
        return data


def npz_rows(path: Path) -> dict[str, Rows]:
    """Return the arrays of an .npz file by name; none is read yet, and no pickle ever is.

    Raises:
        DataError: the file is not an .npz file, is damaged, or holds Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                info.filename.removesuffix(".npy"): _member(archive, info, path)
                for info in archive.infolist()
            }
    except FileNotFoundError:
        raise DataError(f"{path}: expected an .npz file, got nothing there") from None
    except _DAMAGED as error:
        if isinstance(error, DataError):
            raise
        raise DataError(_damaged(str(path), error)) from None


def _damaged(where: str, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"{where}: expected a whole file, got a damaged one ({reason}); copy it again"


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Rows:
    where = f"{path}:{info.filename}"
    if stored := info.compress_type == zipfile.ZIP_STORED:
        # Not through the archive: it refuses a small member with one changed byte as a whole.
        begin = _begin(path, info)
        with path.open("rb") as stream:
            stream.seek(begin)
            shape, fortran, dtype = read_header(stream)
            offset = stream.tell()
    else:
        with archive.open(info) as member:
            shape, fortran, dtype = read_header(member)
            offset = member.tell()
    if dtype.hasobject:
        raise DataError(f"{where}: expected numbers, got Python objects, which are never loaded")
    if fortran and len(shape) > 1:
        raise DataError(f"{where}: expected C order, got Fortran order; np.ascontiguousarray it")
    opener = partial(_open_file, path) if stored else partial(_open_member, path, info.filename)
    return Rows(opener, offset, shape or (1,), dtype, where)


def _begin(path: Path, info: zipfile.ZipInfo) -> int:
    """Return where the bytes of a stored member begin."""
    with path.open("rb") as raw:
        raw.seek(info.header_offset + 26)
        name, extra = struct.unpack("<HH", raw.read(4))
    return int(info.header_offset + 30 + name + extra)


def _open_file(path: Path) -> IO[bytes]:
    return path.open("rb")


def _open_member(path: Path, name: str) -> IO[bytes]:
    # The member keeps the archive's file open after the archive object is closed.
    with zipfile.ZipFile(path) as archive:
        return archive.open(name)
