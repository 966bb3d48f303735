"""Where each image of a data set is stored: under its source's own name, told apart on every file
system.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ..data import Source
from ..errors import DataError
from .formats import format_of
from .formats.tar import stem
from .plan import Plan

__all__ = ["IMAGES", "check_format", "image_names"]

IMAGES = "images"
"""The folder of the images, so that no class folder meets records/ or flow/."""

_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


def image_names(
    source: Source, labels: NDArray[np.int64] | None, names: Mapping[int, str] | None
) -> Callable[[int], str]:
    """Return a function from a sample's index to the path of its PNG in the destination.

    Args:
        source: class folders keep their relative paths; array sources are put into a folder a
            label.
        labels: the model's class of every sample, or None where there are none.
        names: the class names, where they are known.

    Raises:
        DataError: two classes have names that would be one folder.
    """
    if source.keys_are_paths or labels is None:
        return lambda index: f"{IMAGES}/{source.key(index)}.png"
    folders = {int(label): _folder(int(label), names) for label in np.unique(labels)}
    seen: dict[str, int] = {}
    for label, folder in folders.items():
        other = seen.setdefault(_folded(folder), label)
        if other != label:
            raise DataError(
                f"classes {other} and {label}: expected two names, got {folder!r} twice"
            )
    return lambda index: f"{IMAGES}/{folders[int(labels[index])]}/{source.key(index)}.png"


def check_format(plan: Plan, name_of: Callable[[int], str], source: Source) -> None:
    """Refuse a plan that its format cannot hold.

    Raises:
        DataError: the images are no pictures, two samples collide (both are named), or a name
            leaves the destination.
        MissingExtra: the format needs a package that is not installed.
    """
    module, channel = format_of(plan.format), plan.image_shape[0]
    module.prepare(plan)
    if module.PICTURES and channel not in (1, 3):
        raise DataError(f"format {plan.format}: expected 1 or 3 channels, got {channel}; use npz")
    if plan.format == "folder":
        _check_files(name_of, source, plan.count)
    elif plan.format == "tar":
        _check_members(source, plan.count)


def _check_members(source: Source, count: int) -> None:
    """Refuse samples whose images would be one member: readers would make them one sample."""
    seen: dict[str, int] = {}
    for index in range(count):
        _check_plain(source.key(index), source.where(index))
        other = seen.setdefault(stem(source.key(index)), index)
        if other != index:
            raise DataError(
                f"{source.where(other)} and {source.where(index)}: expected images that differ in "
                f"more than their suffix, both would be {stem(source.key(index))}.png; rename one, "
                "or use format npz"
            )


def _check_files(name_of: Callable[[int], str], source: Source, count: int) -> None:
    """Refuse samples whose images would be one file here, or on a file system that ignores case."""
    seen: dict[str, int] = {}
    for index in range(count):
        name = name_of(index)
        _check_plain(name, source.where(index))
        other = seen.setdefault(_folded(name), index)
        if other != index:
            raise DataError(
                f"{source.where(other)} and {source.where(index)}: expected images that differ in "
                f"more than suffix and case, both would be {name}; rename one, or use format npz"
            )


def _check_plain(name: str, where: str) -> None:
    """Refuse a name that leads out of the destination, or that a file system writes another way."""
    path = PurePosixPath(name)
    odd = path.is_absolute() or ".." in path.parts or str(path) != name
    if odd or "\\" in name or "\0" in name:
        raise DataError(f"{where}: expected a plain name, got {name!r}; rename it, or use npz")


def _folder(label: int, names: Mapping[int, str] | None) -> str:
    name = (names or {}).get(label, str(label))
    return _UNSAFE.sub("_", name).strip(" .") or str(label)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
