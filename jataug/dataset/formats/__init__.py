"""How a shard lies on the disk, a module a format; every module has the same names.

PICTURES    whether images are stored as PNG files, which have 1 or 3 channels
CARD        what the data card says about the layout
LOADED      the files that Hugging Face's `datasets` is pointed to
prepare     refuses what the format cannot hold; returns the versions that its bytes depend on
Writer      writes a shard, batch by batch
Reader      reads its images back, one at a time
"""

from collections.abc import Mapping
from types import ModuleType

from . import folder, npz, parquet, tar

__all__ = ["FORMATS", "format_of"]

FORMATS: Mapping[str, ModuleType] = {
    "folder": folder,
    "npz": npz,
    "tar": tar,
    "parquet": parquet,
}


def format_of(name: str) -> ModuleType:
    """Return the module of a format."""
    return FORMATS[name]
