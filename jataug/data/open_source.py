"""Opens the source at a path, whose format is found from its files."""

import os
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path

from ..errors import DataError
from .array_files import idx_pair, open_idx, open_npz
from .image_folder import SUFFIXES, FolderSource
from .readers.shards import expand, is_pattern, one_split, shard_files
from .source import Source
from .table_files import DiskSource, ParquetSource
from .webdataset import TarSource

__all__ = ["FORMATS", "open_source"]


def open_source(path: str | PathLike[str], *, format: str | None = None) -> Source:
    """Return the images at `path`, to be read one at a time.

    Args:
        path: one of

            - a directory of class folders, or of images (no labels);
            - an .npz file: images uint8 (N, H, W[, C]), labels (N,) if any;
            - an idx or idx.gz images file with its labels beside it, or a directory with one pair;
            - a .tar file in the WebDataset convention, a directory of them, or a pattern such as
              shard-{000000..000012}.tar;
            - a .parquet file with an image column, a directory of them, or a pattern;
            - a directory that `datasets` saved with save_to_disk;
            - an adversarial data set that generate made.

        format: "folder", "npz", "idx", "tar", "parquet", "disk" or "dataset"; by default told from
            the path.

    Raises:
        DataError: there is nothing there, or it is none of these.
        MissingExtra: reading it needs a package that is not installed.
    """
    place = Path(path)
    if format is not None and format not in FORMATS:
        raise DataError(f"source format: expected one of {', '.join(FORMATS)}, got {format!r}")
    if not place.exists() and not is_pattern(place):
        raise DataError(
            f"{place}: expected a directory, .npz, idx, .tar or .parquet file, got nothing there"
        )
    try:
        kind = format or _kind(place)
    except OSError as error:
        raise DataError(f"{place}: cannot be read: {error.strerror}") from None
    return _OPENERS[kind](place)


def _open_idx(place: Path) -> Source:
    return open_idx((idx_pair(place) if place.is_dir() else None) or place)


def _open_tar(place: Path) -> Source:
    files = shard_files(place, ".tar")
    one_split(place, files)
    return TarSource(files, place)


def _open_parquet(place: Path) -> Source:
    files = shard_files(place, ".parquet")
    one_split(place, files)
    return ParquetSource(files, place)


def _open_dataset(place: Path) -> Source:
    from ..dataset.stored_source import StoredSource

    return StoredSource(place)


_OPENERS: Mapping[str, Callable[[Path], Source]] = {
    "folder": FolderSource,
    "npz": open_npz,
    "idx": _open_idx,
    "tar": _open_tar,
    "parquet": _open_parquet,
    "disk": DiskSource,
    "dataset": _open_dataset,
}
FORMATS = tuple(_OPENERS)


_OTHER_IMAGES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".tif", ".tiff"}
)  # fmt: skip


def _kind(place: Path) -> str:
    if place.is_dir():
        return _directory(place)
    name = expand(str(place))[0].name if is_pattern(place) else place.name
    for suffix in ("npz", "tar", "parquet"):
        if name.lower().endswith(f".{suffix}"):
            return suffix
    if "idx3" in name:
        return "idx"
    if name.lower().endswith((".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")):
        raise DataError(
            f"{place}: expected a plain .tar, which can be read anywhere, got a compressed one; "
            "decompress it"
        )
    if place.suffix.lower() in SUFFIXES | _OTHER_IMAGES:
        converted = "" if place.suffix.lower() in SUFFIXES else ", converted to PNG or JPEG,"
        raise DataError(
            f"{place}: expected a folder of images, got one image; put it{converted} into a "
            "folder and name that, with --labels predicted, or with a class folder inside"
        )
    raise DataError(
        f"{place}: expected a directory, or an .npz, idx3-ubyte[.gz], .tar or .parquet file, "
        f"got {place.name}"
    )


def _directory(place: Path) -> str:
    from ..dataset.stored_source import is_stored

    if is_stored(place):
        return "dataset"
    if (place / "state.json").is_file() or (place / "dataset_dict.json").is_file():
        return "disk"
    if idx_pair(place):
        return "idx"
    with os.scandir(place) as entries:
        sets = sorted(e.name for e in entries if e.is_dir() and is_stored(Path(e.path)))
    if sets:
        raise DataError(
            f"{place}: holds the data set{'s' * (len(sets) > 1)} {', '.join(sets)}, and no "
            f"classes; name one: {place / sets[0]}"
        )
    held = [kind for kind in ("tar", "parquet") if shard_files(place, f".{kind}")]
    if held and (other := _other_images(place)):
        held.append(other)
    if len(held) > 1:
        raise DataError(
            f"{place}: expected one kind of source, got {' and '.join(held)}; "
            "move them into folders of their own"
        )
    return held[0] if held else "folder"


def _other_images(place: Path) -> str | None:
    names = (p.name for p in place.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    found = next((name for name in names if not name.startswith(".")), None)
    return f"images ({found})" if found else None
