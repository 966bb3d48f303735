"""The .npy format, read by many threads at once.

numpy parses a header as Python, and CPython 3.11 and 3.12 fail at that when threads of different
depth do it together ("AST constructor recursion depth mismatch"). The headers that numpy writes are
plain enough to be read without.
"""

import io
import math
import re
import struct
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

__all__ = ["Header", "read_array", "read_header"]

_PLAIN = re.compile(
    rb"\{'descr': '([<>|]\w+)', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\), \}\s*"
)
_LONGEST = 10_000


class Header(NamedTuple):
    """What an array is."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


def read_header(stream: IO[bytes]) -> Header:
    """Return the header of the array that begins here; the stream then stands at its entries.

    Raises:
        ValueError: it is damaged, or cut off.
    """
    try:
        version = npy.read_magic(stream)
        size = stream.read(2 if version == (1, 0) else 4)
        (length,) = struct.unpack("<H" if version == (1, 0) else "<I", size)
        text = stream.read(min(length, _LONGEST + 1))
        plain = _PLAIN.fullmatch(text) if len(text) == length else None
        if plain is None:
            return _by_numpy(version, size + text)
        kind, order, shape = plain.groups()
        sizes = tuple(int(number) for number in shape.replace(b",", b" ").split())
        return Header(sizes, order == b"True", np.dtype(kind.decode()))
    except Exception as error:  # numpy parses the header as Python, which fails in many ways
        raise ValueError(f"{type(error).__name__} in the header of an array") from None


def read_array(content: bytes) -> NDArray[Any]:
    """Return the array that is a whole .npy file.

    Raises:
        ValueError: it is damaged, cut off, longer than it says, or made of Python objects.
    """
    stream = io.BytesIO(content)
    shape, fortran, dtype = read_header(stream)
    begin, count = stream.tell(), math.prod(shape)
    if dtype.hasobject:
        raise ValueError("expected numbers, got Python objects")
    if len(content) - begin != count * dtype.itemsize:
        expected = count * dtype.itemsize
        raise ValueError(f"expected {expected} bytes of entries, got {len(content) - begin}")
    flat = np.frombuffer(bytearray(content), dtype, count, begin)
    return flat.reshape(shape, order="F" if fortran else "C")


def _by_numpy(version: tuple[int, int], header: bytes) -> Header:
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    found = Header(*read(io.BytesIO(header)))
    if any(size < 0 for size in found.shape):
        raise ValueError("a negative size")
    return found
