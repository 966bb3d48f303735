"""Which kind of source a path is."""

from os import PathLike
from pathlib import Path

from ..errors import DataError
from .arrays import idx_pair, open_idx, open_npz
from .folder import FolderSource
from .source import Source

__all__ = ["FORMATS", "open_source"]

FORMATS = ("folder", "npz", "idx")


def open_source(path: str | PathLike[str], *, format: str | None = None) -> Source:
    """Return the images at `path`, to be read one at a time.

    Args:
        path: a directory of class folders, a directory of images (no labels), an .npz file (images
            uint8 (N, H, W[, C]), labels (N,) if any), an idx or idx.gz images file with its labels
            beside it, or a directory with one such pair.
        format: "folder", "npz" or "idx"; by default told from the path.

    Raises:
        DataError: there is nothing there, or it is none of these.
    """
    place = Path(path)
    if format is not None and format not in FORMATS:
        raise DataError(f"source format: expected one of {', '.join(FORMATS)}, got {format!r}")
    if not place.exists():
        raise DataError(f"{place}: expected a directory, .npz or idx file, got nothing there")
    pair = idx_pair(place) if place.is_dir() and format != "folder" else None
    kind = format or _kind(place, pair)
    if kind == "folder":
        return FolderSource(place)
    return open_npz(place) if kind == "npz" else open_idx(pair or place)


def _kind(place: Path, pair: Path | None) -> str:
    if place.is_dir():
        return "idx" if pair else "folder"
    if place.suffix.lower() == ".npz":
        return "npz"
    if "idx3" in place.name:
        return "idx"
    raise DataError(
        f"{place}: expected a directory, an .npz file or an idx3-ubyte[.gz] file, got {place.name}"
    )
