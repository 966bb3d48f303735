"""Headers of .npy arrays."""

import gc
import io
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from jataug.data.readers.npy import read_array, read_header

ARRAYS = {
    "images": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "labels": np.arange(5),
    "number": np.array(3.5),
    "empty": np.zeros((0, 4), np.float32),
    "halves": np.linspace(0, 1, 6).astype(">f2").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "names": np.array(["a", "bcd"]),
    "records": np.zeros(3, [("x", "<f4"), ("y", "<i8")]),
}


def saved(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    return file.getvalue()


@pytest.mark.parametrize("version", [None, (2, 0)])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back(name, version):
    array, content = ARRAYS[name], saved(ARRAYS[name], version)
    found = read_array(content)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    assert found.flags.f_contiguous == array.flags.f_contiguous
    assert found.flags.writeable
    assert read_header(io.BytesIO(content)).shape == array.shape


def test_damaged_files():
    content = saved(ARRAYS["images"])
    for wrong in (b"", content[:5], content[:40], content[:-1], content + b"x", b"PK" + content):
        with pytest.raises(ValueError, match=r"array|entries"):
            read_array(wrong)
    with pytest.raises(ValueError, match="Python objects"):
        read_array(saved(np.array([{}], object)))
    negative = content.replace(b"(2, 3, 4)", b"(-2, 3, 4)").replace(b" \n", b"\n", 1)
    with pytest.raises(ValueError, match="in the header of an array"):
        read_array(negative)


def test_threads_of_any_depth_read_at_once():
    """CPython 3.11 fails in one of 16 when numpy parses the headers as Python."""

    def read(depth):
        if depth:
            return read(depth - 1)
        return [read_header(io.BytesIO(content)).shape for _ in range(100)]

    def switch(phase, info):
        time.sleep(0)

    content, interval, threshold = (
        saved(ARRAYS["images"]),
        sys.getswitchinterval(),
        gc.get_threshold(),
    )
    try:
        sys.setswitchinterval(1e-6)
        gc.set_threshold(5)
        gc.callbacks.append(switch)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(read, range(16)))
    finally:
        gc.callbacks.remove(switch)
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)
    assert found == [[(2, 3, 4)] * 100] * 16
